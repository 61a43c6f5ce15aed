"""The cache, by hand: invalidate, clear, explain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..cache import protocol
from ..cache.protocol import Cell
from ..cache.reads import NULL, hit
from ..cache.store import Get, Life
from ..errors import ConfigurationError, InputError, TemplateError, TenantRequired, UnknownField
from ..keys import BoundTemplate, Pattern, suffix
from ..writes.cache_effects import CacheEffects
from ..writes.templates import directory_key
from .arguments import UNSET, MaybeDatabase, MaybeRedis
from .core import C, M, R, U
from .keyspace import Keyspace, Scope
from .reading import Reading
from .sides import primary_of
from .sight import Sight


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the cache holds for one key, and what a reader would make of it.

    Attributes:
        entry: The Redis key.
        tokens: Key of each token of its scopes -> what it holds (``None``: missing).
        state: ``"hit"``, ``"miss: …"`` or ``"bypass: …"``.
        held_until_ms: Writers that hold the entry or a token -> when that ends, in milliseconds of the server's clock.
        templates: Templates listed for the table -> whether each is confirmed.
        life_ms: Remaining life of the entry; ``None`` where there is none.
        age_ms: How long ago it was stored; ``None`` where it is no value.
        near: A copy lies in this process, in the near tier.
    """

    entry: str
    tokens: dict[str, str | None]
    state: str
    held_until_ms: dict[str, int] = field(default_factory=dict)
    templates: dict[str, bool] = field(default_factory=dict)
    life_ms: int | None = None
    age_ms: int | None = None
    near: bool = False


class Invalidation(Reading[M, C, U, R]):
    """Dropping what is cached, and looking at it."""

    async def invalidate(self, redis: MaybeRedis = UNSET, pattern: str | None = None, **key: Any) -> None:
        """Drop what is cached: for changes that fastrdb does not see (psql, triggers, other programs).

        Args:
            redis: A client or a Cache.
            pattern: A directory, ``"user:*"``, with placeholders or without. The key space is never scanned.
            **key: Fields of one row, or of the pattern. Where they do not name all that the row is cached under, and
                without either, the whole table is dropped.

        Raises:
            TemplateError: The pattern names no directory that a value of this crud lies in.
            MissingKeyField, UnknownField, ValueRefused: The key does not name a row.
            TenantRequired: Rows belong to tenants, and the call is for one; without the fields of a row it concerns
                them all, which ``all_tenants()`` is for.
        """
        if self._tenancy is not None and (pattern is not None or not key):
            self._require_everybody("invalidate() without the fields of a row")
        key = dict(self._told(key))
        cache = self._cache(redis)
        if cache is None:
            return
        effects = CacheEffects(cache)
        if pattern is not None:
            effects.touch().directories.add(directory_key(self._directory(self._space(cache), pattern, key)))
        else:
            write = effects.touch().table(self._model.table)
            write.everything = not key
            write.images.append({self._column(name): value for name, value in key.items()})
        await effects.hold()
        await effects.release(committed=True)

    async def clear(self, redis: MaybeRedis = UNSET) -> None:
        """Drop everything that is cached below this crud's templates, and the whole table for other cruds on it.

        Raises:
            TenantRequired: Rows belong to tenants; this concerns them all, which ``all_tenants()`` is for.
        """
        if self._tenancy is not None:
            self._require_everybody("clear()")
        cache = self._cache(redis)
        if cache is not None:
            roots = {directory_key((cache.prefix + template.root).encode()) for template in self._templates()}
            effects = CacheEffects(cache)
            touched = effects.touch()
            touched.directories |= roots
            touched.table(self._model.table).everything = True
            await effects.hold()
            await effects.release(committed=True)

    async def explain(
        self,
        redis: MaybeRedis = UNSET,
        db: MaybeDatabase = None,
        *,
        limit: int | None = None,
        page: int = 1,
        **key: Any,
    ) -> Explanation:
        """Tell what is cached for one row or, with *limit*, for one page of a list, and why it would be a miss.

        Args:
            redis: A client or a Cache.
            db: A session or factory, to know which database's values are right; by default the crud's own, or else
                whatever this crud used last.
            limit, page: Name a page of the list template.
            **key: The fields of the template; further ones filter, as in ``get`` and ``get_multi``.
        """
        cache = self._cache(redis)
        if cache is None:
            raise InputError("redis is None: there is no cache to explain")
        if self._tenancy is not None and self._tenancy.everybody:
            raise InputError("all_tenants() reads past the cache: there is nothing to explain; ask for one tenant")
        key = dict(self._told(key))
        sight = (await self._asked_sources(db, redis)).sight if (db or self._db) is not None else None
        entry, scope, bulk = self._located(self._space(cache), key, limit, page, sight)
        stamps = scope.stamps(self._identity(db))
        found = await cache.store.read(entry, scope.tokens, bulk=bulk)
        life, all_cell = await cache.run([Life(entry), Get(self._space(cache).all_key)])
        served = hit(stamps, found, cache.store.epoch) is not None
        remaining = int(life) if isinstance(life, (bytes, int)) and int(life) >= 0 else None
        is_value = found[0] is not None and not protocol.is_hold(found[0]) and not protocol.is_claim(found[0])
        return Explanation(
            entry=entry.decode(),
            tokens={k.decode(): _shown(c) for k, c in zip(scope.tokens, found[1], strict=True)},
            state=_state(sight, served, found[0], found[1][: len(scope.value_tokens)]),
            held_until_ms=_holders([found[0], *found[1]]),
            templates=_templates(all_cell if not isinstance(all_cell, tuple) else None),
            life_ms=remaining,
            age_ms=self._full_life(entry, found[0]) - remaining if remaining is not None and is_value else None,
            near=cache.near is not None and cache.near.holds(entry, scope.tokens),
        )

    def _require_everybody(self, call: str) -> None:
        if self._tenancy is not None and not self._tenancy.everybody:
            problem = f"{call} concerns the rows of all tenants: call it on all_tenants()"
            raise TenantRequired(self._model.name, self._tenancy.field, problem)

    def _full_life(self, entry: bytes, cell: Cell) -> int:
        null = cell is not None and cell[protocol.STAMP_LENGTH :] == NULL
        return self._layout.negative_ms if null else self._layout.life_ms(entry)

    def _templates(self) -> list[Any]:
        pages = self._layout.pages
        return [*self._layout.rows, *([pages] if pages is not None else [])]

    def _column(self, name: str) -> str:
        if name not in self._model.columns:
            raise UnknownField(name, self._model.name, self._model.columns)
        return self._model.columns[name].name

    def _directory(self, space: Keyspace, pattern: str, key: Mapping[str, Any]) -> bytes:
        """Give the smallest directory that values carry and that covers the pattern."""
        asked = Pattern(pattern)
        if not asked or asked.directory is None:
            raise TemplateError(pattern, "names no directory: pass one such as 'user:*'")
        carried = {template.root for template in self._templates()}
        if self._layout.pages is not None:
            columns = frozenset(self._model.columns)
            carried.add(self._layout.pages.directory(columns).text)
        if self._layout.dropped is not None and self._layout.dropped.directory is not None:
            carried.add(self._layout.dropped.directory.text)
        directory = asked.directory
        if directory.text not in carried:
            if any(asked.covers(template) for template in self._templates()) or directory.root not in carried:
                directory = directory if directory.root not in carried else _root(directory.root)
            else:
                raise TemplateError(
                    pattern, f"names no directory of this crud; use one of {', '.join(sorted(carried))}"
                )
        return BoundTemplate(directory, self._model.values, space.prefix).key(key)

    def _located(
        self, space: Keyspace, key: Mapping[str, Any], limit: int | None, page: int, sight: Sight | None
    ) -> tuple[bytes, Scope, bool]:
        asked = self._asked(key, None, None)
        if limit is not None and space.lists is not None:
            given = {name: value for name, value in key.items() if name in space.lists.fields}
            entry = space.lists.bound.key({**given, "page": page, "limit": limit})
            extras = asked.extras(space.lists.fields, sight=sight)
            scope = space.lists.scope(given, self._depends(asked.tables, space.prefix))
            return entry + (suffix(extras).encode() if extras is not None else b""), scope, True
        keys = space.row(key)
        if keys is None:
            raise InputError("explain: give all fields of a row template, or limit= for a page of a list")
        entry = keys.key(key)
        extras = asked.extras(keys.fields, sight=sight)
        if extras is None:
            return entry, keys.scope(key), False
        return (
            entry + suffix(extras).encode(),
            keys.narrowed(key, entry, self._depends(asked.tables, space.prefix)),
            False,
        )

    def _identity(self, db: MaybeDatabase) -> bytes:
        if db is not None or self._db is not None:
            return self._places.of(primary_of(self._database(db)), self._model.mapper).identity
        if self._places.last is None:
            raise ConfigurationError("explain: no database was used yet; pass db=")
        return self._places.last.identity


def _root(root: str) -> Any:
    found = Pattern(f"{root}*").directory
    assert found is not None
    return found


def _shown(cell: Cell) -> str | None:
    return None if cell is None else cell.split(b"\n", 1)[0].decode(errors="replace")


def _state(sight: Sight | None, served: bool, entry: Cell, tokens: tuple[Cell, ...]) -> str:
    if sight is not None and sight.reason is not None:
        return f"bypass: {sight.reason}"
    return "hit" if served else _why_not(entry, tokens)


def _why_not(entry: Cell, tokens: tuple[Cell, ...]) -> str:
    if protocol.is_hold(entry):
        return "bypass: the entry is held"
    if any(protocol.is_hold(token) for token in tokens):
        return "bypass: a token is held"
    if protocol.is_claim(entry):
        return "miss: someone is loading it"
    if entry is None:
        return "miss: absent"
    return "miss: a token is missing" if None in tokens else "miss: aged, or of another schema, database or server run"


def _holders(cells: list[Cell]) -> dict[str, int]:
    found: dict[str, int] = {}
    for cell in cells:
        if cell is not None and protocol.is_hold(cell):
            for writer, until in protocol.parse_hold(cell).writers.items():
                found[writer.decode()] = max(until, found.get(writer.decode(), 0))
    return found


def _templates(cell: Cell) -> dict[str, bool]:
    if cell is None or protocol.is_hold(cell):
        return {}
    return {text.decode(): not waiting for text, waiting in protocol.parse_listing(cell).templates.items()}
