"""What a call asks for, the SELECTs that answer it, and how they are answered through the cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar, cast

from sqlalchemy import ColumnElement, Row, Select, false, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import with_loader_criteria
from sqlalchemy.sql.base import ExecutableOption

from ..cache.aged import Spare
from ..cache.cache import Cache
from ..cache.near import Near
from ..cache.reads import NULL, Ask, Decode, Load, Loaded, decoded, hit, miss
from ..db.sessions import answers_from_cache
from ..errors import CacheUnavailable, InputError, SessionRefused, UsageError
from ..filters import Analysis, check_one_row, parse, searched
from ..writes.templates import any_key, table_keys
from .arguments import Asked, Filters, Sources
from .core import NO_TABLES, C, Core, M, R, U
from .execution import Query, fetch
from .keyspace import Scope
from .options import PLAIN, ReadOptions
from .policies import policies_of
from .standing_in import NOT_DELIVERED, or_aged

T = TypeVar("T")
# Of a read: the template to confirm, whether it is large, why it is not cached, the life of its value.
Kind: TypeAlias = tuple[bytes | None, bool, str | None, int | None]


class Reading(Core[M, C, U, R]):
    """What every method that reads or writes rows stands on."""

    def _asked(
        self,
        keywords: Mapping[str, Any],
        filters: Filters,
        where: ColumnElement[bool] | None,
        options: ReadOptions | None = None,
    ) -> Asked:
        exact = None
        if self._tenancy is not None:
            keywords = self._tenancy.told(keywords)
            exact = None if self._tenancy.everybody else self._tenancy.exact
        return self._parsed(keywords, filters, where, options, exact)

    def _parsed(
        self,
        keywords: Mapping[str, Any],
        filters: Filters,
        where: ColumnElement[bool] | None,
        options: ReadOptions | None = None,
        exact: str | None = None,
    ) -> Asked:
        """Parse what was asked for as it is, of whatever tenant; *exact* is compared in every character."""
        parsed = parse(self._model.fields, keywords, filters, exact=exact)
        given = {**keywords, **({"filters": filters} if filters is not None else {})}
        options = PLAIN if options is None else options
        if not isinstance(options, ReadOptions):
            raise UsageError(f"options: {type(options).__name__}; pass a fastrdb.ReadOptions")
        if options is not PLAIN:
            self._policies.check(options)
            if options.max_stale is not None:
                self._check_stale(options)
            if options.search.strip():
                parsed = searched(parsed, self._model.fields, self._searched_fields(), options.search)
            options = options.parsed
        if where is None and parsed.fields <= self._model.columns.keys():
            return Asked(parsed, None, None, NO_TABLES, None, given, options)
        analyses = [self._analysis(name) for name in parsed.fields if name not in self._model.columns]
        text = None
        if where is not None:
            analyses.append(self._analyse(where))
            if analyses[-1].subquery or analyses[-1].tables:
                check_one_row(where, self._model.table)
            text = analyses[-1].text
        tables = frozenset[str]().union(*(a.tables for a in analyses))
        reason = next((a.uncacheable for a in analyses if a.uncacheable is not None), None)
        return Asked(parsed, where, text, tables, reason, given, options)

    def _searched_fields(self) -> tuple[str, ...]:
        if not self._search:
            raise InputError(
                f"search: this crud has no columns for it; name some: Crud({self._model.name}, …, search=…)"
            )
        return self._search

    def _analysis(self, name: str) -> Analysis:
        """Tell what a hybrid, a ``column_property`` or a filter on related rows reads."""

        def build() -> Analysis:
            if name in self._model.expressions:
                return self._analyse(self._model.expressions[name])
            fields = self._model.fields
            return self._analyse(parse(fields, {name: {"is_not": None}}).build(fields)[0])

        found: Analysis = self._kept(("analysis", name), build)
        return found

    def _whose(self, asked: Asked) -> dict[str, Any]:
        """Give the tenant that a call works for, as its keywords would say it; nothing where there is none."""
        field = self._tenancy.field if self._tenancy is not None else None
        return {field: asked.given[field]} if field is not None and field in asked.given else {}

    # -- statements

    def _select(self, asked: Asked, shown: ReadOptions | None = None) -> Select[Any]:
        """Give the SELECT of responses and hidden columns, with the caller's conditions and the model's own.

        Args:
            shown: Says which related rows are shown, where that is not what the call says of its own.
        """
        columns = [self._model.columns[name] for name in self._hidden]
        selected: list[Any] = [self._model.cls] if self._responses.by_entity else [*self._responses.columns.values()]
        selected += [column.label(f"fastrdb_{column.key}") for column in columns]
        loading = self._loading(asked.options if shown is None else shown)
        statement = cast("Select[Any]", select(*selected)).options(*loading)
        return self._conditioned(statement, asked)

    def _loading(self, options: ReadOptions) -> tuple[ExecutableOption, ...]:
        """Give the options of a SELECT of instances: what is loaded with them, and that it is not deleted."""
        if options.include_deleted or options.only_deleted:
            return self._responses.options
        deletions = {model.cls: policies_of(model, None, None).deletion for model in self._responses.shown.models()}
        live = [
            with_loader_criteria(cls, deletion.live, include_aliases=True)
            for cls, deletion in deletions.items()
            if deletion is not None
        ]
        return (*self._responses.options, *live)

    def _conditioned(self, statement: Select[Any], asked: Asked) -> Select[Any]:
        conditions = self._conditions(asked)
        return statement.where(*conditions) if conditions else statement

    def _conditions(self, asked: Asked) -> list[ColumnElement[bool]]:
        """Give all that a row must satisfy: what the model and its policies demand, and what the caller asked for."""
        policies = self._policies.conditions(asked.options)
        asked_for = [*self._model.criteria, *policies, *asked.filter.build(self._model.fields)]
        return asked_for if asked.where is None else [*asked_for, asked.where]

    def _query(self, statement: Select[Any], asked: Asked) -> Query:
        """Give a SELECT of rows in its forms, with the lock that the call asks for."""
        wanted, by_entity, table = asked.options.for_update, self._responses.by_entity, self._model.table
        if not wanted:
            return Query.of(statement, by_entity=by_entity)
        nowait, skip = wanted == "nowait", wanted == "skip_locked"
        locking = statement.with_for_update(of=table, nowait=nowait, skip_locked=skip)
        keys = {column.key: column for column in table.primary_key.columns}
        return Query.of(locking, by_entity=by_entity)._replace(lock=update(table).where(false()).values(keys))

    def _check_lock(self, sources: Sources, asked: Asked) -> None:
        """Refuse to lock what could not stay locked."""
        wanted = asked.options.for_update
        if not wanted:
            return
        if not isinstance(sources.db, AsyncSession):
            raise SessionRefused("db: for_update with a factory would lock nothing; pass a session, and commit it")
        if wanted is not True and sources.place.dialect == "sqlite":
            raise UsageError(f"for_update: {wanted!r}; SQLite locks no rows: pass True, which locks the database")

    def _refuse_lock(self, asked: Asked) -> None:
        """Refuse options that lock rows where none is read."""
        if asked.options.for_update:
            raise UsageError("options: for_update locks rows, and this method reads none; use get or get_multi")

    def _check_stale(self, options: ReadOptions) -> None:
        """Refuse an age that this crud does not keep values for."""
        allowed, wanted = self._max_stale_s, options.max_stale_s
        if wanted is not None and (allowed is None or wanted > allowed):
            problem = "keeps no aged values" if allowed is None else f"keeps values for {allowed:g} seconds"
            raise UsageError(
                f"options: max_stale={options.max_stale!r}, but this crud {problem}; "
                f"build it with Crud({self._model.name}, …, max_stale={wanted:g}), or leave the option out"
            )

    def _refuse_stale(self, asked: Asked) -> None:
        """Refuse to accept aged values where none is ever kept."""
        if asked.options.max_stale is not None:
            raise UsageError("options: max_stale is for reads through the cache, one value each; leave it out here")

    def _build(self, row: Row[Any]) -> tuple[R, dict[str, Any]]:
        """Make a row a response, and its hidden columns a dict."""
        width = 1 if self._responses.by_entity else len(self._responses.columns)
        response = self._responses.build_entity(row[0]) if self._responses.by_entity else self._responses.build(row)
        return response, dict(zip(self._hidden, row[width:], strict=False))

    # -- reading

    async def _read(
        self,
        sources: Sources,
        entry: bytes,
        scope: Scope,
        load: Load[T],
        decode: Decode[T],
        *,
        listed: bytes | None,
        bulk: bool = False,
        reason: str | None = None,
        life_ms: int | None = None,
        options: ReadOptions | None = None,
    ) -> T:
        """Answer from the cache where that is allowed, else load.

        Args:
            reason: Why that is not allowed, if so.
            life_ms: Life of the value, where it is not the crud's.
            options: What the call was told.
        """
        db, place, cache, _, sight = sources
        if cache is None:
            return (await load(False)).answer
        if self._max_stale_s is not None:
            spare = self._spare(sources, cache, entry, scope, options)
            kind = listed, bulk, reason, life_ms
            return await self._read_or_aged(sources, cache, scope, spare, load, decode, kind)
        doubtful = reason or sight is not None or cache.kept or not cache.serves or isinstance(db, AsyncSession)
        if (doubtful or place.bound) and (barred := self._barred(sources, cache, reason)) is not None:
            cache.stats.count(f"bypass: {barred}")
            return (await load(False)).answer
        here, stamps = cache.here(), scope.stamps(place.identity)
        found = None
        try:
            if cache.near is None:
                found = await (here.read_bulk if bulk else here.read)(entry, scope.tokens)
            else:
                found = await cache.near.read(here.store, stamps, entry, scope.tokens, bulk)
        except CacheUnavailable:
            cache.stats.count("bypass: unreachable")
        if found is None:  # not in the handler: whatever fails now is no consequence of Redis
            return (await load(False)).answer
        raw = hit(stamps, found, here.store.epoch)
        if raw is not None:
            cache.stats.hits += 1
            return decode(raw) if raw is not NULL else cast("T", None)
        ask = self._ask_of(sources, cache, entry, scope, (listed, bulk, reason, life_ms))
        return await miss(cache, ask, found, load, decode)

    def _ask_of(
        self, sources: Sources, cache: Cache, entry: bytes, scope: Scope, kind: Kind, spare: Spare | None = None
    ) -> Ask:
        """Give what is asked for, where it was no hit."""
        db, place, _, _, _ = sources
        listed, bulk, _, life_ms = kind
        waits = not (isinstance(db, AsyncSession) and db.in_transaction())
        return Ask(
            entry, scope.tokens, table_keys(self._model.table, cache.prefix)[0], listed, scope.stamps(place.identity),
            self._layout.life_ms(entry) if life_ms is None else life_ms, self._layout.negative_ms, bulk, waits,
            spare=spare,
        )  # fmt: skip

    def _spare(self, sources: Sources, cache: Cache, entry: bytes, scope: Scope, options: ReadOptions | None) -> Spare:
        """Give what an aged value of this read is known by, and which age the caller accepts."""
        context, accepted = scope.stamps(sources.place.identity).context, options.max_stale_s if options else None
        return Spare(cache.aged, entry, context, scope.value_tokens, scope.tokens, accepted, sources.space)

    async def _read_or_aged(
        self,
        sources: Sources,
        cache: Cache,
        scope: Scope,
        spare: Spare,
        load: Load[T],
        decode: Decode[T],
        kind: Kind,
    ) -> T:
        """Answer as ``_read`` does, keep what is right, and give what was right a while ago to who accepts it."""
        entry, (_, bulk, reason, _) = spare.entry, kind
        guarded = or_aged(load, decode, sources, cache, spare)
        if (barred := self._barred(sources, cache, reason)) is not None:
            cache.stats.count(f"bypass: {barred}")
            # Whatever else bars the cache bars its aged values, too: the session's own writes, a row of other eyes.
            return (await (guarded if barred == NOT_DELIVERED else load)(False)).answer
        sent, found = spare.aged.begin(), None
        try:
            found = await cache.store.read(entry, scope.tokens, bulk=bulk)
        except CacheUnavailable:
            cache.stats.count("bypass: unreachable")
        if found is None:  # as in ``_read``
            return (await guarded(False)).answer
        ask = self._ask_of(sources, cache, entry, scope, kind, spare)
        raw = hit(ask.stamps, found, cache.store.epoch)
        if raw is None:
            return await miss(cache, ask, found, guarded, decode)
        cache.stats.hits += 1
        spare.note(raw, sent, null=raw is NULL)
        return decoded(raw, decode)

    def _nearby(self, sources: Sources, near: Near, entry: bytes, scope: Scope) -> bytes | None:
        """Give the bytes of a value that lies in this process and may be served to everybody: ``_read`` is spared.

        ``None`` where there is none, and where ``_read`` has to see whether this caller may have it.
        """
        db, place, cache, _, sight = sources
        apart = sight is not None or place.bound or isinstance(db, AsyncSession)
        if apart or cache is None or cache.kept or not cache.serves:
            return None
        return near.hit(scope.stamps(place.identity), entry, scope.tokens)

    def _barred(self, sources: Sources, cache: Cache, reason: str | None) -> str | None:
        """Say why the cache may not answer this call; ``None`` if it may. *reason* is why not, if that is known."""
        db, place, _, _, sight = sources
        if sight is not None:
            reason = reason or sight.reason
        if reason is not None:
            return reason
        if place.bound or (isinstance(db, AsyncSession) and not answers_from_cache(db, place)):
            return "the session has changes, or its own connection"
        if cache.undelivered or not cache.serves:
            return NOT_DELIVERED if cache.serves else "switched off"
        return None

    async def _fetch(
        self, sources: Sources, query: Query, parameters: Mapping[str, Any], build: Any
    ) -> tuple[list[Any], str]:
        """Run a SELECT; give its rows, as *build* made them, and why they may not be cached (empty if they may)."""
        rows, refusal, count = await fetch(sources.db, sources.place, self._model.mapper, query, parameters, build)
        if count and sources.cache is not None:
            sources.cache.stats.count(count)
        any_snapshot = sources.cache is not None and not sources.cache.parts.fresh_snapshot
        return rows, "" if any_snapshot else refusal

    def _depends(self, tables: frozenset[str], prefix: str) -> tuple[bytes, ...]:
        """Give the ``any`` tokens of the tables that a statement reads besides its rows."""
        return tuple(any_key(name, prefix) for name in sorted(tables))


def refused(answer: T, reason: str) -> Loaded[T]:
    """Give an answer that is not stored."""
    return Loaded(answer, None, reason)
