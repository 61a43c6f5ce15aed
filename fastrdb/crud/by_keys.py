"""Many rows, each named by its key: get_by_keys."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar, cast, overload

from sqlalchemy import ARRAY, ColumnElement, Row, any_, bindparam, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import TypeEngine

from ..cache.many import Missing, look, miss_many
from ..cache.reads import NULL, Ask, Loaded, hit
from ..errors import InputError, KeysNotFound, MissingKeyField, MultipleFound, UnknownField, UsageError, ValueRefused
from ..filters import MAX_VALUES, unrounded
from ..values import ColumnValues
from ..writes.templates import table_keys
from .arguments import UNSET, Asked, Filters, MaybeDatabase, MaybeRedis, Sources, Unset
from .arrays import item_type
from .core import C, M, R, U
from .execution import Query
from .keyspace import RowKeys
from .options import ReadOptions
from .reading import refused
from .rows import Rows, Spot

T = TypeVar("T")

Ident = tuple[Any, ...]
OnMissing = Literal["skip", "none", "raise"]
_MISSING = ("skip", "none", "raise")
_KEYS = "fastrdb_keys"
_AT_ONCE = 1_000  # rows that are validated without a look at anything else
_IGNORED = re.compile(r"[^a-z1-9]")  # cases, blanks, punctuation, leading zeros


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


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of one kind, each once.

    Attributes:
        names: Their fields, in the order of the model's.
        wanted: The fields of each key, coerced.
        idents: What two equal keys have in common: of each field the value, or the canonical text of an inexact one.
        places: For each key that was given, its number here.
        given: The keys as they were given.
    """

    names: tuple[str, ...]
    wanted: list[dict[str, Any]]
    idents: list[Ident]
    places: list[int]
    given: list[Any]


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
    ) -> list[R] | list[R | None]:
        """Give the rows with these keys, in the order of the keys: those that are cached in shared round trips.

        The others come by one SELECT, which then fills the cache as single misses do.

        Args:
            db, redis, where, filters, options: As in ``get``; a row that does not satisfy the filters is missing.
            keys: Values of one field, or mappings of the fields of a row template or of the primary key; all of one
                kind. Values are of the primary key where a template has just that, else of the first template of one
                field, else of the primary key. A key that is given twice gives its row twice, as one object.
            missing: What becomes of a key without a row: ``"skip"`` leaves it out, ``"none"`` gives ``None`` in its
                place, ``"raise"`` raises.

        Raises:
            KeysNotFound: Rows are missing, and *missing* is ``"raise"``; names all of their keys.
            MultipleFound: Several rows have one of the keys.
            UsageError: The keys are of several kinds, or *missing* is none of the three.
            UnknownField, MissingKeyField, ValueRefused: A key is wrong.
        """
        if missing not in _MISSING:
            raise UsageError(f"missing: {missing!r}; pass one of {', '.join(map(repr, _MISSING))}")
        named = self._named(keys)
        asked = self._asked({}, filters, where, options)
        sources = await self._asked_sources(db, redis, asked.tables)
        if not named.wanted:
            return []
        found = await self._rows_of(sources, named, asked)
        answers = [found[place] for place in named.places]
        if missing == "raise":
            lacking = dict.fromkeys(place for place in named.places if found[place] is None)
            if lacking:
                raise KeysNotFound(self._model.name, [named.given[named.places.index(place)] for place in lacking])
        return answers if missing == "none" else [answer for answer in answers if answer is not None]

    # -- the keys

    def _named(self, keys: Iterable[Any] | Unset) -> Keys:
        """Read keys as they were given."""
        if isinstance(keys, (Unset, str, bytes, Mapping)) or not hasattr(keys, "__iter__"):
            raise UsageError("keys: pass a list of values, or of mappings of the fields of a key")
        given = list(keys)
        mappings = sum(isinstance(each, Mapping) for each in given)
        if mappings not in (0, len(given)):
            raise UsageError("keys: some are mappings and some are values; pass keys of one kind")
        if not given:
            return Keys((), [], [], [], [])
        names = self._names_of(cast("Sequence[Mapping[str, Any]]", given)) if mappings else (self._single_field(),)
        columns = [[each[name] for each in given] for name in names] if mappings else [given]
        return self._keys(names, columns, given)

    def _keys(self, names: tuple[str, ...], columns: Sequence[Sequence[Any]], given: list[Any]) -> Keys:
        """Read keys by the columns of their values."""
        values = [self._model.values[name] for name in names]
        coerced = [list(map(each.coerce, column)) for each, column in zip(values, columns, strict=True)]
        for each, column in zip(values, coerced, strict=True):
            if None in column:
                raise ValueRefused(each.name, "a value in a key: NULL equals nothing", None)
        idents: list[Ident] = list(zip(*map(_identified, values, coerced), strict=True))
        known: dict[Ident, int] = {}
        places = [known.setdefault(ident, len(known)) for ident in idents]
        rows = list(zip(*coerced, strict=True))
        if len(known) < len(rows):
            first: dict[int, tuple[Any, ...]] = {}
            for place, row in zip(places, rows, strict=True):
                first.setdefault(place, row)
            rows = list(first.values())
        return Keys(names, [dict(zip(names, row, strict=True)) for row in rows], list(known), places, given)

    def _names_of(self, keys: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        """Give the fields of keys that are mappings: the same for all, those of a template or of the primary key."""
        first = set(keys[0])
        for name in keys[0]:
            if name not in self._model.columns:
                raise UnknownField(name, self._model.name, self._model.columns)
        if any(key.keys() != first for key in keys):
            raise UsageError("keys: not all mappings have the same fields; pass keys of one kind")
        kinds = [template.fields for template in self._layout.rows] + [self._model.primary_key]
        for fields in kinds:
            if set(fields) == first:
                return tuple(fields)
        for fields in kinds:
            if first < set(fields):
                raise MissingKeyField(next(name for name in fields if name not in first), ", ".join(fields))
        takes = "; ".join(", ".join(fields) for fields in kinds)
        raise UsageError(f"keys: {', '.join(keys[0])} are not the fields of a key; pass those of one of: {takes}")

    def _single_field(self) -> str:
        """Give the field that bare values are values of."""
        templates = [template.fields for template in self._layout.rows if len(template.fields) == 1]
        primary = self._model.primary_key
        if len(primary) == 1 and (tuple(primary) in map(tuple, templates) or not templates):
            return primary[0]
        if templates:
            return templates[0][0]
        raise UsageError(f"keys: pass mappings of the fields {', '.join(primary)}: no key of {self._model.name} is one")

    # -- reading

    async def _rows_of(self, sources: Sources, named: Keys, asked: Asked) -> list[R | None]:
        """Give the row of each key, or ``None``."""
        cache, space = sources.cache, sources.space
        keys = space.row(named.wanted[0]) if space is not None else None

        async def load(numbers: Sequence[int], may_store: bool) -> list[Loaded[R | None]]:
            return await self._load_by_keys(sources, named, asked, keys, spots, numbers, may_store=may_store)

        async def load_all() -> list[R | None]:
            return [loaded.answer for loaded in await load(range(len(named.wanted)), False)]

        spots: list[Spot] = []
        if cache is None or keys is None:
            if cache is not None:
                cache.stats.count("bypass: no template for these keys")
            return await load_all()
        options = asked.options if asked.options.shape is not None else None
        filters = asked.given.get("filters")
        spots = [self._spot(sources, keys, key, asked.where, filters, options) for key in named.wanted]
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
        looked = await look(cache, [(entry, scope.tokens) for _, entry, _, scope, _, _ in spots])
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
            rows, fresh = await self._fetch_by_keys(sources, named, asked, part)
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
                    answers.append(self._loaded(response, hidden, keys, spots[number][2], fresh=fresh))
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
        folded = Counter(_folded(ident) if foldable and ident is not None else None for ident in rows)
        unique = self._model.covers_unique_key(frozenset(named.names))
        found: set[int] = set()
        missing: list[int] = []
        for number in part:
            ident = named.idents[number]
            fold = _folded(ident) if foldable else None
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
        one = self._asked(named.wanted[number], asked.given.get("filters"), asked.where, asked.options)
        entry = spots[number][2] if spots else b""
        return await self._load_row(sources, one, keys, entry, may_store=may_store and bool(spots))

    async def _fetch_by_keys(
        self, sources: Sources, named: Keys, asked: Asked, numbers: Sequence[int]
    ) -> tuple[list[Fetched], bool]:
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
        found, fresh = await self._fetch(sources, query, parameters, self._builder(names))
        return found, fresh

    def _builder(self, names: tuple[str, ...]) -> Callable[[Row[Any]], Fetched]:
        first = (1 if self._responses.by_entity else len(self._responses.columns)) + len(self._hidden)
        values = [self._model.values[name] for name in names]

        def build(row: Row[Any]) -> Fetched:
            response, hidden = self._build(row)
            try:
                coerced = [[each.coerce(row[first + at])] for at, each in enumerate(values)]
                (ident,) = zip(*map(_identified, values, coerced), strict=True)
            except InputError:
                return Fetched(response, hidden, None)
            return Fetched(response, hidden, ident)

        return build


def _identified(values: ColumnValues, coerced: Sequence[Any]) -> Sequence[Any]:
    """Give what equal values of a column have in common: themselves, where the database compares as Python does."""
    return coerced if values.exact else list(map(values.text, coerced))


def _folded(ident: Ident) -> Ident | None:
    """Give what texts have in common that some collation takes for equal; ``None`` where that cannot be told."""
    texts = list(map(str, ident))
    if not all(text.isascii() for text in texts):
        return None
    return tuple([_IGNORED.sub("", text.lower()) for text in texts])


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
