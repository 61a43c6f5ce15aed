"""What every method of Crud stands on: the model, the schemas, the keys, and whose database and cache it talks to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Final, Generic, cast, get_args
from weakref import WeakKeyDictionary

from pydantic import BaseModel
from sqlalchemy import Column, ColumnElement
from sqlalchemy.engine.default import StrCompileDialect
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from typing_extensions import TypeVar

from ..cache.cache import Cache
from ..cache.cache import resolve as resolve_cache
from ..cache.protocol import ALL_PARTS
from ..db.replicas import ReadWrite
from ..db.restrictions import Restrictions
from ..db.restrictions import ask as ask_restrictions
from ..db.sessions import Place, Places, SessionFactory
from ..db.sessions import resolve as resolve_database
from ..db.transactions import Transactions
from ..errors import ConfigurationError, RedisRefused, SessionRefused, TemplateError, UsageError
from ..filters import Analysis, analyse, reads_other_rows
from ..keys import RESERVED, Pattern, Template, check_list_template, check_row_template, check_templates
from .arguments import UNSET, MaybeDatabase, MaybeRedis, Sources
from .committed import Hooks
from .keyspace import Keyspace, Layout
from .model import Model
from .policies import DeletionFields, Policies, TenantField, policies_of
from .response import Responses
from .searching import checked_search
from .sides import primary_of
from .sight import NOT_ASKED, sight_of

M = TypeVar("M", default=Any)
C = TypeVar("C", bound=BaseModel, default=Any)
U = TypeVar("U", bound=BaseModel, default=Any)
R = TypeVar("R", bound=BaseModel, default=Any)
T = TypeVar("T")


_DIALECT = StrCompileDialect()
NO_TABLES: Final = frozenset[str]()
_STATEMENTS = 500  # shapes of statements that one crud keeps


class Core(Generic[M, C, U, R]):
    """The part of Crud that all of its methods share."""

    _reserved: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        model: type[M],
        response_schema: type[R],
        pattern: str | Sequence[str] | None = None,
        list_pattern: str | None = None,
        exp: float | timedelta = 3_600,
        invalidate_pattern_prefix: str = "",
        *,
        create_schema: type[C] | None = None,
        update_schema: type[U] | None = None,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        commit: bool = True,
        negative_exp: float | timedelta = 60,
        max_limit: int = 1_000,
        triggers: bool = False,
        touches: Sequence[type[Any]] = (),
        depends_on: Sequence[type[Any]] = (),
        tenant: TenantField = None,
        soft_delete: DeletionFields = None,
        search: Sequence[str] = (),
        max_stale: float | timedelta | None = None,
    ) -> None:
        """Build a crud; everything that can be checked is checked here.

        Args:
            model: A SQLAlchemy model, mapped to one table.
            response_schema: The pydantic model of what reads and writes return.
            pattern: Key template of one row, ``"user:email:{email}"``, or several; ``None``: rows are not cached.
            list_pattern: Key template of a page, with ``{page}`` and ``{limit}``; ``None``: lists are not cached.
            exp: Life of a cached value, in seconds or as a timedelta; up to a tenth shorter, at random.
            invalidate_pattern_prefix: A directory to drop on each write, ``"user:*"``; ``""`` (usual) for none.
            create_schema: What ``create`` takes; by default the second type argument.
            update_schema: What ``update`` takes; by default the third type argument.
            db: Used where a call passes none.
            redis: Used where a call passes none.
            commit: ``False``: no write ever commits, the caller does.
            negative_exp: Life of "there is no such row", in seconds or as a timedelta; 0 for never.
            max_limit: The largest ``limit`` that lists take.
            triggers: Triggers of the table change rows after the statement: written values are then not cached.
            touches: Other models whose rows triggers of this table change.
            depends_on: Other models that the response shows in ways fastrdb cannot see (a Python property, say).
            tenant: The attribute that says whose a row is; by default ``tenant_id`` of a model with
                ``TenantAwareMixin``. Every call then needs a tenant, among its keywords or from the block
                ``fastrdb.context.tenant``, and sees and writes that tenant's rows only. ``False``: no tenants.
            soft_delete: The attribute, or the attributes, that mark a deleted row; by default ``is_active`` and
                ``deleted_at`` of a model with ``SoftDeleteMixin``. A nullable datetime has a value in deleted rows; a
                truth value has its default in all others. ``False``: ``delete`` deletes.
            search: Columns of text that ``ReadOptions(search=…)`` looks into; ``"country.name"`` is of a related row.
            max_stale: Seconds, or a timedelta: the last values are kept in the process for so long, and reads that say
                ``ReadOptions(max_stale=…)`` may get them; all others are as strict as ever. ``None``: none may.

        Raises:
            TemplateError: A template or the pattern cannot work.
            UnsupportedModel: The model or a schema needs what fastrdb does not do.
            ConfigurationError: A number is out of range, or a policy or *search* names a column that cannot serve.
        """
        self._model = Model(model)
        self._policies: Policies = policies_of(self._model, tenant, soft_delete)
        self._tenancy = self._policies.tenancy
        whose = self._tenancy.field if self._tenancy is not None else None
        self._responses: Responses[R] = Responses(self._model, response_schema, whose)
        self._schemas: tuple[type[C] | None, type[U] | None] = (create_schema, update_schema)
        self._db, self._redis, self._commit = db, redis, commit
        self._hooks = Hooks(model, self._model.attribute_of)
        self._max_limit = _positive("max_limit", max_limit)
        self._max_stale_s = _milliseconds("max_stale", max_stale, 1) / 1_000 if max_stale is not None else None
        self._search = checked_search(self._model, search)
        self._triggers = triggers
        self._touches = tuple(Model(other).table for other in touches)
        tables, self._uncacheable = self._shown(depends_on)
        self._layout = self._checked_layout(pattern, list_pattern, exp, invalidate_pattern_prefix, negative_exp, tables)
        self._tables = frozenset([self._model.table.fullname, *tables])
        self._begin()

    def _begin(self) -> None:
        """Find out what follows from all that was given, and remember nothing yet of any call."""
        self._keyed = self._layout  # what reads use of it
        self._spaces: dict[str, Keyspace] = {}
        self._places = Places()
        self._last: tuple[SessionFactory, async_sessionmaker[Any], dict[str, Any], Sources] | None = None
        self._restrictions: WeakKeyDictionary[Transactions, Restrictions] = WeakKeyDictionary()
        self._statements: dict[object, Any] = {}
        self._hidden = self._hidden_columns()
        self._filled = frozenset(name for name, column in self._model.columns.items() if self._is_filled(name, column))
        shown = self._responses.columns.values()
        self._plain = not self._responses.by_entity and all(isinstance(column, Column) for column in shown)
        dropped = self._layout.dropped
        self._dropped_columns = dropped.fields if dropped is not None else ()

    @property
    def model(self) -> type[M]:
        """The SQLAlchemy model."""
        return cast("type[M]", self._model.cls)

    @property
    def response_schema(self) -> type[R]:
        """The pydantic model of responses."""
        schema: Any = self._responses.schema
        return cast("type[R]", schema)

    # -- construction

    def _shown(self, depends_on: Sequence[type[Any]]) -> tuple[tuple[str, ...], str | None]:
        """Name the tables that a response shows besides the row itself, and say why it cannot be cached, if so."""
        found = {Model(other).table.fullname: None for other in depends_on}
        uncacheable = None
        for name, expression in self._responses.columns.items():
            if name in self._model.columns:
                continue
            analysis = self._analyse(expression)
            uncacheable = uncacheable or analysis.uncacheable
            found |= dict.fromkeys(sorted(analysis.tables))
        # The row's own table, too, where related rows are of it: any of them may be another row.
        for analysis in self._responses.shown.analyses():
            uncacheable = uncacheable or analysis.uncacheable
            found |= dict.fromkeys(sorted(analysis.tables))
        return tuple(found), uncacheable

    def _checked_layout(
        self,
        pattern: str | Sequence[str] | None,
        list_pattern: str | None,
        exp: float | timedelta,
        dropped: str,
        negative_exp: float | timedelta,
        tables: tuple[str, ...],
    ) -> Layout:
        texts = () if pattern is None else (pattern,) if isinstance(pattern, str) else tuple(pattern)
        rows = tuple(Template(text) for text in texts)
        pages = Template(list_pattern) if list_pattern is not None else None
        pattern_dropped = Pattern(dropped)
        if self._tenancy is not None:
            pattern_dropped = self._tenancy.in_pattern(pattern_dropped, [*rows, *([pages] if pages else [])])
            rows = tuple(map(self._tenancy.in_template, rows))
            pages = self._tenancy.in_template(pages) if pages is not None else None
        derived: list[Template] = []
        if pages is not None:
            check_list_template(pages)
            derived.append(Template(pages.directory(frozenset(pages.fields) - RESERVED).text + "count"))
        everything = [*rows, *([pages] if pages is not None else [])]
        check_templates(everything, derived)
        for row in rows:
            check_row_template(row)
        return Layout(
            rows=rows,
            pages=pages,
            dropped=_checked_pattern(pattern_dropped, everything),
            depends_on=tables,
            fingerprint=self._responses.fingerprint(self._policies.text),
            exp_ms=_milliseconds("exp", exp, 1),
            negative_ms=_milliseconds("negative_exp", negative_exp, 0),
        )

    def _hidden_columns(self) -> tuple[str, ...]:
        """Give the attributes that reads fetch besides the response's, to compare keys: those of all templates."""
        names = dict.fromkeys(name for template in self._layout.rows for name in template.fields)
        if self._layout.pages is not None:
            names |= dict.fromkeys(f for f in self._layout.pages.fields if f not in RESERVED)
        Keyspace(self._model, self._layout, "", ALL_PARTS)  # binds every template: unknown placeholders raise here
        return tuple(names)

    def _is_filled(self, name: str, column: Column[Any]) -> bool:
        """Tell whether a column has a value of its own where an INSERT gives none."""
        own = column.default is not None or column.server_default is not None or name in self._model.factories
        return own or column is self._model.table.autoincrement_column

    def _analyse(self, expression: ColumnElement[Any]) -> Analysis:
        """Find out what an expression reads besides its row: other tables, or further rows of the same one."""
        found, own = analyse(expression, _DIALECT), self._model.table
        if found.subquery and found.uncacheable is None and reads_other_rows(expression, own):
            return found
        return found._replace(tables=found.tables - {own.fullname})

    def _kept(self, shape: object, build: Any) -> Any:
        """Give the statement of a shape, built once."""
        found = self._statements.get(shape)
        if found is None:
            if len(self._statements) >= _STATEMENTS:
                self._statements.clear()
            found = self._statements[shape] = build()
        return found

    # -- what a call was given

    def _told(self, keywords: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give the keywords of a call with its tenant among them, where rows belong to tenants."""
        return keywords if self._tenancy is None else self._tenancy.told(keywords)

    def _for_whom(self, method: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """Give the tenant for whom a call works that takes no fields, as a keyword; nothing where there is none.

        Raises:
            UsageError: Another keyword than the tenant's was given.
        """
        field = self._tenancy.field if self._tenancy is not None else None
        unknown = [name for name in keywords if name != field]
        if unknown:
            besides = f"; of the fields it takes {field} alone" if field is not None else ""
            raise UsageError(f"{method}: {unknown[0]!r} is no argument of it{besides}")
        return self._tenancy.told(keywords) if self._tenancy is not None else {}

    def _tenant_in(self, key: Mapping[str, Any]) -> dict[str, Any]:
        """Give the tenant that the keywords of a call name, if they do."""
        field = self._tenancy.field if self._tenancy is not None else None
        return {field: key[field]} if field is not None and field in key else {}

    def _schema(self, index: int) -> type[BaseModel] | None:
        """Give the create (0) or update (1) schema. ``__orig_class__`` exists only after ``__init__``."""
        explicit = self._schemas[index]
        if explicit is not None:
            return explicit
        arguments = get_args(getattr(self, "__orig_class__", None))
        found = arguments[index + 1] if len(arguments) > index + 1 else None
        return found if isinstance(found, type) and issubclass(found, BaseModel) else None

    def _database(self, db: MaybeDatabase) -> AsyncSession | SessionFactory:
        return resolve_database(db if db is not None else self._db)

    def _cache(self, redis: MaybeRedis) -> Cache | None:
        given = self._redis if redis is UNSET else redis
        if given is UNSET:
            raise RedisRefused(
                "redis is missing: pass a redis.asyncio.Redis or a fastrdb.Cache, "
                "or redis=None if no process caches this table"
            )
        return resolve_cache(given)

    def _space(self, cache: Cache) -> Keyspace:
        found = self._spaces.get(cache.prefix)
        if found is None:
            found = self._spaces[cache.prefix] = Keyspace(self._model, self._keyed, cache.prefix, cache.parts)
        return found

    def _place(self, db: AsyncSession | SessionFactory, cache: Cache | None) -> Place:
        place = self._places.of(primary_of(db), self._model.mapper)
        if isinstance(db, ReadWrite) and place.dialect != "postgresql":
            raise SessionRefused("db: ReadWrite is for PostgreSQL; pass the factory that writes alone")
        if cache is not None and not place.private:
            cache.exclude_others(place.identity)
        return place

    def _sources(self, db: MaybeDatabase, redis: MaybeRedis) -> Sources:
        """Resolve what a call was given; nothing new is found where it is the factory and the cache of the last one.

        Sessions are never kept here. A factory that was configured anew is resolved again.
        """
        given, cache = db if db is not None else self._db, self._cache(redis)
        if self._last is not None:
            factory, maker, options, last = self._last
            if given is factory and cache is last.cache and maker.kw == options:
                return last
        database = resolve_database(given)
        place = self._place(database, cache)
        sighted, sight = sight_of(database, place, self._restrictions.get(place.transactions), self._tables)
        found = Sources(sighted, place, cache, self._space(cache) if cache is not None else None, sight)
        writes = primary_of(database)
        if sight is None and isinstance(writes, async_sessionmaker) and self._places.remembers(writes):
            self._last = cast("SessionFactory", database), writes, dict(writes.kw), found
        return found

    async def _asked_sources(
        self, db: MaybeDatabase, redis: MaybeRedis, besides: frozenset[str] = NO_TABLES
    ) -> Sources:
        """Give the sources of a call, once the database has been asked which tables hide rows.

        Args:
            besides: Names of further tables that the call reads.
        """
        found = self._sources(db, redis)
        if found.sight is NOT_ASKED:
            asked = await ask_restrictions(found.db, self._model.mapper)
            if asked.path and found.place.transactions not in self._restrictions:  # else somebody was faster
                self._places.set_apart(found.place, asked.path)
            self._restrictions[found.place.transactions] = asked
            found = self._sources(db, redis)
        return self._widened(found, besides) if besides else found

    def _widened(self, sources: Sources, besides: frozenset[str]) -> Sources:
        """Give the sources for a call that reads further tables, which may hide rows where the crud's own do not."""
        if sources.sight is not None or not besides:
            return sources
        known = self._restrictions.get(sources.place.transactions)
        db, sight = sight_of(sources.db, sources.place, known, besides)
        return sources._replace(db=db, sight=sight)


def _checked_pattern(pattern: Pattern, templates: Sequence[Template]) -> Pattern | None:
    if not pattern:
        return None
    covered = any(pattern.covers(template) for template in templates)
    elsewhere = pattern.directory is not None and pattern.directory.root not in {t.root for t in templates}
    if not covered and not elsewhere:
        roots = ", ".join(sorted({f"{t.root}*" for t in templates}))
        raise TemplateError(
            pattern.text, f"covers none of this crud's keys, so it would drop nothing; use {roots}, or leave it out"
        )
    return pattern


def _milliseconds(name: str, value: float | timedelta, least: int) -> int:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not least <= seconds * 1000 < 2**53:
        raise ConfigurationError(
            f"{name} must be seconds or a timedelta{' above 0' if least else ', 0 for never'}, not {value!r}"
        )
    return round(seconds * 1000)


def _positive(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{name} must be a whole number, 1 or more, not {value!r}")
    return value
