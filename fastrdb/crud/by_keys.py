"""Many rows, each named by its key: get_by_keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, cast, get_args, overload

from sqlalchemy import ARRAY, ColumnElement, Row, any_, bindparam, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import TypeEngine

from ..cache.many import Missing, look, miss_many
from ..cache.reads import NULL, Ask, Loaded, hit
from ..errors import InputError, MultipleFound, RowsNotFound
from ..filters import MAX_VALUES, unrounded
from ..writes.templates import table_keys
from .arguments import UNSET, Asked, Filters, MaybeDatabase, MaybeRedis, Sources, Unset, check_missing
from .arrays import item_type
from .core import C, M, R, U
from .execution import Query
from .keyspace import RowKeys
from .named_keys import Ident, Keys, folded_ident, identified, named_keys
from .options import ReadOptions
from .reading import refused
from .rows import Rows, Spot

T = TypeVar("T")

OnMissing = Literal["skip", "none", "raise"]
_MISSING_FIX = "pass missing='skip' or 'none', or leave them out"
_KEYS = "fastrdb_keys"
_AT_ONCE = 1_000  # rows that are validated without a look at anything else


class Fetched(NamedTuple):
    """A row that one of the keys may name.

    Attributes:
        response: What the caller gets.
        hidden: Its hidden columns.
        ident: As in ``Keys``; ``None`` where a column has a value that it cannot have.
    """

    response: Any
    hidden: dict[str, Any]
    ident: Ident | None


class ByKeys(Rows[M, C, U, R]):
    """The rows of many keys."""

    @overload
    async def get_by_keys(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        keys: Iterable[Any] | Unset = UNSET,
        *,
        missing: Literal["skip", "raise"] = "skip",
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        options: ReadOptions | None = None,
        **whose: Any,
    ) -> list[R]: ...

    @overload
    async def get_by_keys(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        keys: Iterable[Any] | Unset = UNSET,
        *,
        missing: Literal["none"],
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        options: ReadOptions | None = None,
        **whose: Any,
    ) -> list[R | None]: ...

    async def get_by_keys(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        keys: Iterable[Any] | Unset = UNSET,
        *,
        missing: OnMissing = "skip",
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        options: ReadOptions | None = None,
        **whose: Any,
    ) -> list[R] | list[R | None]:
        """Give the rows with these keys, in the order of the keys: those that are cached in shared round trips.

        The others come by one SELECT, which then fills the cache as single misses do.

        Args:
            db, redis, where, filters, options: As in ``get``; a row that does not satisfy the filters is missing.
            keys: Values of one field, tuples of the values of the primary key, or mappings of the fields of a row
                template or of the primary key; all of one kind. Values are of the primary key where a template has
                just that, else of the first template of one field, else of the primary key. A key that is given twice
                gives its row twice, as one object.
            missing: What becomes of a key without a row: ``"skip"`` leaves it out, ``"none"`` gives ``None`` in its
                place, ``"raise"`` raises.
            **whose: The tenant, where rows belong to tenants; no other field.

        Raises:
            RowsNotFound: Rows are missing, and *missing* is ``"raise"``; names all of their keys.
            MultipleFound: Several rows have one of the keys.
            UsageError: The keys are of several kinds; or another keyword than the tenant's was given.
            TenantRequired, TenantMismatch: As in ``get``.
            InputError: *missing* is none of the three.
            UnknownField, MissingKeyField, ValueRefused: A key is wrong.
        """
        check_missing(missing, get_args(OnMissing))
        besides = (self._tenancy.field,) if self._tenancy is not None else ()
        named = named_keys(self._model, self._keyed.rows, keys, besides)
        if isinstance(options, ReadOptions) and options.search:
            raise InputError("options: search goes with lists; rows that are named by keys take filters=")
        asked = self._asked(self._for_whom("get_by_keys", whose), filters, where, options)
        self._refuse_stale(asked)
        sources = await self._asked_sources(db, redis, asked.tables)
        if not named.wanted:
            return []
        found = await self._rows_of(sources, named, asked, options)
        answers = [found[place] for place in named.places]
        if missing == "raise":
            lacking = dict.fromkeys(place for place in named.places if found[place] is None)
            if lacking:
                first = [named.places.index(place) for place in lacking]
                raise RowsNotFound(self._model.name, {index: named.given[index] for index in first}, _MISSING_FIX)
        return answers if missing == "none" else [answer for answer in answers if answer is not None]

    # -- reading

    async def _rows_of(
        self, sources: Sources, named: Keys, asked: Asked, options: ReadOptions | None
    ) -> list[R | None]:
        """Give the row of each key, or ``None``."""
        cache, space = sources.cache, sources.space
        tenant = self._whose(asked)
        keys = space.row({**tenant, **named.wanted[0]}) if space is not None else None

        async def load(numbers: Sequence[int], may_store: bool) -> list[Loaded[R | None]]:
            return await self._load_by_keys(sources, named, asked, keys, spots, numbers, may_store=may_store)

        async def load_all() -> list[R | None]:
            return [loaded.answer for loaded in await load(range(len(named.wanted)), False)]

        spots: list[Spot] = []
        if cache is None or keys is None:
            if cache is not None:
                cache.stats.count("bypass: no template for these keys")
            return await load_all()
        filters = asked.given.get("filters")
        wanted = [{**tenant, **key} for key in named.wanted] if tenant else named.wanted
        first = self._spot(sources, keys, wanted[0], asked.where, filters, options)
        _, _, _, scope, listed, reason = first
        if keys.one_scope and scope is keys.scope(wanted[0]):  # nothing but the key is asked for
            entries = map(keys.key, wanted)
            spots = [(sources, each, each, scope, listed, reason) for each in entries]
        else:
            spots = [first, *(self._spot(sources, keys, key, asked.where, filters, options) for key in wanted[1:])]
        if (barred := self._barred(sources, cache, spots[0][-1])) is not None:
            cache.stats.count(f"bypass: {barred}")
            return await load_all()
        return await self._through_cache(sources, keys, spots, load)

    async def _through_cache(
        self,
        sources: Sources,
        keys: RowKeys,
        spots: Sequence[Spot],
        load: Callable[[Sequence[int], bool], Any],
    ) -> list[R | None]:
        cache, identity = sources.cache, sources.place.identity
        assert cache is not None
        waits = not (isinstance(sources.db, AsyncSession) and sources.db.in_transaction())
        if cache.near is None:
            looked = await look(cache.store, [(entry, scope.tokens) for _, entry, _, scope, _, _ in spots])
        else:
            wanted = [(scope.stamps(identity), entry, scope.tokens) for _, entry, _, scope, _, _ in spots]
            looked = await cache.near.look(cache.store, wanted)
        epoch, decode = cache.store.epoch, self._responses.load
        answers: list[R | None] = [None] * len(spots)
        hits: list[tuple[int, bytes]] = []
        missing: list[Missing[R | None]] = []
        unreachable: list[int] = []
        for number, (found, spot) in enumerate(zip(looked, spots, strict=True)):
            if found is None:
                cache.stats.count("bypass: unreachable")
                unreachable.append(number)
                continue
            raw = hit(spot[3].stamps(identity), found, epoch)
            if raw is None:
                missing.append(Missing(number, self._ask(sources, spot, waits=waits), found))
                continue
            cache.stats.hits += 1
            if raw is not NULL:
                hits.append((number, raw))
        for start in range(0, len(hits), _AT_ONCE):
            part = hits[start : start + _AT_ONCE]
            together = b"[" + b",".join([raw for _, raw in part]) + b"]"
            for (number, _), response in zip(part, self._responses.load_list(together), strict=True):
                answers[number] = response
        if missing:
            keeps = isinstance(sources.db, AsyncSession)
            answered = await miss_many(cache, missing, load, decode, keeps=keeps)
            for number, answer in answered.items():
                answers[number] = answer
        if unreachable:
            for number, loaded in zip(unreachable, await load(unreachable, False), strict=True):
                answers[number] = loaded.answer
        return answers

    def _ask(self, sources: Sources, spot: Spot, *, waits: bool) -> Ask:
        _, entry, _, scope, listed, _ = spot
        assert sources.cache is not None
        any_key, _ = table_keys(self._model.table, sources.cache.prefix)
        life_ms, stamps = self._layout.life_ms(entry), scope.stamps(sources.place.identity)
        return Ask(entry, scope.tokens, any_key, listed, stamps, life_ms, self._layout.negative_ms, waits=waits)

    # -- loading

    async def _load_by_keys(
        self,
        sources: Sources,
        named: Keys,
        asked: Asked,
        keys: RowKeys | None,
        spots: Sequence[Spot],
        numbers: Sequence[int],
        *,
        may_store: bool,
    ) -> list[Loaded[R | None]]:
        """Load the rows of some of the keys, by as few SELECTs as parameters allow."""
        most = MAX_VALUES // len(named.names)
        answers: list[Loaded[R | None]] = []
        for start in range(0, len(numbers), most):
            part = numbers[start : start + most]
            rows, refusal = await self._fetch_by_keys(sources, named, asked, part)
            by_ident: dict[Ident | None, list[Fetched]] = {}
            for row in rows:
                by_ident.setdefault(row.ident, []).append(row)
            doubtful = await self._doubtful(sources, named, asked, part, by_ident)
            for number in part:
                if number in doubtful:
                    answers.append(await self._load_alone(sources, named, asked, keys, spots, number, may_store))
                    continue
                found = by_ident.get(named.idents[number], [])
                if len(found) > 1:
                    raise MultipleFound(self._model.name, named.wanted[number])
                response, hidden, _ = found[0] if found else (None, None, None)
                if may_store and keys is not None:
                    answers.append(self._loaded(response, hidden, keys, spots[number][2], refusal))
                else:
                    answers.append(refused(response, "not asked for"))
        return answers

    async def _doubtful(
        self, sources: Sources, named: Keys, asked: Asked, part: Sequence[int], rows: Mapping[Ident | None, Any]
    ) -> set[int]:
        """Name the keys that may have another row than Python can tell: to a database, 'JOHN' may equal 'john'.

        They are few, or none as a rule, and are then asked for one by one.
        """
        values = [self._model.values[name] for name in named.names]
        if not rows or all(each.exact for each in values):
            return set()
        foldable = all(each.exact or each.category == "text" for each in values)
        folded = Counter(folded_ident(ident) if foldable and ident is not None else None for ident in rows)
        unique = self._model.covers_unique_key(frozenset(named.names))
        found: set[int] = set()
        missing: list[int] = []
        for number in part:
            ident = named.idents[number]
            fold = folded_ident(ident) if foldable else None
            if ident not in rows:
                if fold is None or fold in folded or None in folded:
                    missing.append(number)
            elif foldable and not unique and (fold is None or folded[fold] > 1 or None in folded):
                found.add(number)
        if missing and (await self._fetch_by_keys(sources, named, asked, missing))[0]:
            found.update(missing)
        return found

    async def _load_alone(
        self,
        sources: Sources,
        named: Keys,
        asked: Asked,
        keys: RowKeys | None,
        spots: Sequence[Spot],
        number: int,
        may_store: bool,
    ) -> Loaded[R | None]:
        one = self._asked(
            {**self._whose(asked), **named.wanted[number]}, asked.given.get("filters"), asked.where, asked.options
        )
        entry = spots[number][2] if spots else b""
        return await self._load_row(sources, one, keys, entry, may_store=may_store and bool(spots))

    async def _fetch_by_keys(
        self, sources: Sources, named: Keys, asked: Asked, numbers: Sequence[int]
    ) -> tuple[list[Fetched], str]:
        names, dialect = named.names, sources.place.dialect
        columns = [self._model.columns[name] for name in names]

        def build() -> Query:
            labels = [column.label(f"fastrdb_by_{name}") for name, column in zip(names, columns, strict=True)]
            statement = self._select(asked).where(_among(columns, dialect)).add_columns(*labels)
            return self._query(statement, asked)

        self._check_lock(sources, asked)
        shape = ("by keys", names, dialect, asked.shape)
        query: Query = self._kept(shape, build) if asked.where is None else build()
        rows = [tuple(named.wanted[number].values()) for number in numbers]
        given = rows if len(names) > 1 else [row[0] for row in rows]
        parameters = {**asked.params, _KEYS: given}
        return await self._fetch(sources, query, parameters, self._builder(names))

    def _builder(self, names: tuple[str, ...]) -> Callable[[Row[Any]], Fetched]:
        first = (1 if self._responses.by_entity else len(self._responses.columns)) + len(self._hidden)
        values = [self._model.values[name] for name in names]

        def build(row: Row[Any]) -> Fetched:
            response, hidden = self._build(row)
            try:
                coerced = [[each.coerce(row[first + at])] for at, each in enumerate(values)]
                (ident,) = zip(*map(identified, values, coerced), strict=True)
            except InputError:
                return Fetched(response, hidden, None)
            return Fetched(response, hidden, ident)

        return build


def _among(columns: Sequence[Any], dialect: str) -> ColumnElement[bool]:
    """Give the condition that a row has one of the keys; PostgreSQL's text is the same for any number of them."""
    if len(columns) > 1:
        types: list[TypeEngine[Any]] = [unrounded(column.type) for column in columns]
        return tuple_(*columns, types=types).in_(bindparam(_KEYS, expanding=True))
    (column,) = columns
    item = item_type(column) if dialect == "postgresql" else None
    if item is not None:
        array = bindparam(_KEYS, type_=ARRAY(item))
        return cast("ColumnElement[bool]", column == any_(array))
    return cast("ColumnElement[bool]", column.in_(bindparam(_KEYS, type_=unrounded(column.type), expanding=True)))
