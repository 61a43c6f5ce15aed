"""How many rows PostgreSQL's planner expects: a guess that costs no scan."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import ClauseElement, Executable, Select, select
from sqlalchemy.ext.compiler import compiles

from .arguments import Asked, MaybeDatabase, MaybeRedis
from .core import C, M, R, U
from .counting import Counting
from .execution import Query
from .options import ESTIMATED_FROM


class Plan(Executable, ClauseElement):
    """EXPLAIN of a SELECT: the plan, as JSON. Nothing is run, so it counts as a plain SELECT."""

    inherit_cache = False
    is_select = True

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(Plan, "postgresql")
def _explain(element: Plan, compiler: Any, **options: Any) -> str:
    return f"EXPLAIN (FORMAT JSON) {compiler.process(element.statement, **options)}"


class Estimates(Counting[M, C, U, R]):
    """The number of rows, roughly."""

    async def _estimated(self, db: MaybeDatabase, redis: MaybeRedis, asked: Asked) -> int | None:
        """Give the number of rows that the planner expects; ``None`` where it is small, or nobody can be asked."""
        sources = await self._asked_sources(db, redis, asked.tables)
        if sources.place.dialect != "postgresql":
            return None
        plan: Any = Plan(self._conditioned(select(1).select_from(self._model.table), asked))
        rows, _ = await self._fetch(sources, Query(plan, plan), asked.params, _planned)
        expected: int = rows[0]
        return expected if expected >= ESTIMATED_FROM else None


def _planned(row: Any) -> int:
    plan = json.loads(row[0]) if isinstance(row[0], str) else row[0]
    return int(plan[0]["Plan"]["Plan Rows"])
