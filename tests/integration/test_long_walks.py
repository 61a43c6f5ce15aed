"""Long walks by cursor while others write: no row that stayed is missed, and none comes twice."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import text

from fastrdb import Order
from tests.drawers import Sessions, shelf, things

ROWS = 100_000

# Ties by the hundred and a tenth without an age; the ids are even, so that rows can come between them.
FILLS = {
    "postgresql": """
        INSERT INTO things (id, rank, level, age)
        SELECT at * 2, at % 97, at % 3, CASE WHEN at % 10 = 0 THEN NULL ELSE (at * 7919) % 300 END
        FROM generate_series(1, 100000) AS at""",
    "sqlite": """
        WITH RECURSIVE numbers(at) AS (SELECT 1 UNION ALL SELECT at + 1 FROM numbers WHERE at < 100000)
        INSERT INTO things (id, rank, level, age)
        SELECT at * 2, at % 97, at % 3, CASE WHEN at % 10 = 0 THEN NULL ELSE (at * 7919) % 300 END FROM numbers""",
    "mysql": """
        INSERT INTO things (id, `rank`, level, age)
        SELECT seq * 2, seq % 97, seq % 3, CASE WHEN seq % 10 = 0 THEN NULL ELSE (seq * 7919) % 300 END
        FROM seq_1_to_100000""",
}
INDEXES = ("CREATE INDEX by_age ON things (age, id)", "CREATE INDEX by_level ON things (level, age, id)")
ORDERS: dict[str, Any] = {
    "ties and NULLs": "age",
    "NULLs elsewhere": [Order("age", ascending=False, nulls="first"), "-id"],
    "mixed": ["-level", Order("age", nulls="last")],
}


class Writer:
    """Inserts and deletes rows all over the list, each of them once."""

    def __init__(self, db: Sessions) -> None:
        self._db, self._random = db, random.Random(4)
        self._left = self._random.sample(range(1, ROWS + 1), 40_000)
        self.deleted: set[int] = set()
        self.inserted: set[int] = set()

    async def write(self) -> None:
        """Delete a hundred rows, and insert as many."""
        gone, come = ([self._left.pop() for _ in range(100)] for _ in range(2))
        self.deleted |= {at * 2 for at in gone}
        self.inserted |= {at * 2 + 1 for at in come}
        values = ", ".join(
            f"({at * 2 + 1}, 1, {at % 3}, {self._random.choice(['NULL', str(self._random.randrange(300))])})"
            for at in come
        )
        async with self._db.begin() as session:
            await session.execute(text(f"DELETE FROM things WHERE id IN ({', '.join(str(at * 2) for at in gone)})"))
            rank = session.get_bind().dialect.identifier_preparer.quote("rank")
            await session.execute(text(f"INSERT INTO things (id, {rank}, level, age) VALUES {values}"))


@pytest.mark.parametrize("order", ORDERS)
async def test_walk_while_others_write(database_url: str, order: str) -> None:
    """Of 100 000 rows with ties and NULLs, walked while rows come and go, each that stayed is on one page."""
    # No index serves the mixed order everywhere: some databases sort the rest of the list for each page of it.
    asked = {"limit": 4_000 if order == "mixed" else 1_000, "order_by": ORDERS[order]}
    async with shelf(database_url) as db:
        async with db.begin() as session:
            for statement in (FILLS[session.get_bind().dialect.name], *INDEXES):
                await session.execute(text(statement))
        writer, crud = Writer(db), things(max_limit=4_000)
        seen: Counter[int] = Counter()
        cursor = None
        while True:
            page = await crud.cursor_page(db, cursor=cursor, **asked)
            seen.update(row.id for row in page.data)
            await asyncio.sleep(0)
            await writer.write()
            if (cursor := page.next) is None:
                break
        assert seen.most_common(1)[0][1] == 1, "a row came twice"
        stayed = set(range(2, 2 * ROWS + 1, 2)) - writer.deleted
        assert stayed - seen.keys() == set(), "a row was missed"
        assert seen.keys() <= stayed | writer.deleted | writer.inserted
        assert len(writer.deleted) > 1_500
