"""What is cached, dropped by hand, where there is no crud at hand: ``invalidate(redis, Model)``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table, inspect
from sqlalchemy.orm import Mapper

from ..cache.cache import Cache, resolve
from ..errors import TemplateError, UnknownField, UsageError
from ..keys import Pattern
from .cache_effects import CacheEffects
from .templates import directory_key


async def invalidate(redis: Any, what: type[Any] | str, **key: Any) -> None:
    """Drop what is cached of a model, of one of its rows, or below a key: after changes that fastrdb does not see.

    Call it after the change has committed. It is a handful of commands, whatever the size of the key space.

    Args:
        redis: The client, or the Cache, that the cruds use; ``None`` does nothing.
        what: A mapped class; or a path such as ``"user:*"``, of which all that lies below its first part is dropped.
        **key: Attributes of one row. Where they do not name all that the row is cached under, the table is dropped.

    Raises:
        UsageError: *what* is neither, or fields were given with a path.
        TemplateError: The path names no directory.
        UnknownField: The model has no such column.
        RedisRefused: *redis* is no client and no Cache.
    """
    cache = resolve(redis)
    if cache is None:
        return
    effects = CacheEffects(cache)
    if isinstance(what, str):
        if key:
            raise UsageError(f"what: {what!r} is a path, which has no fields; pass the model to drop one row")
        effects.touch().directories.add(_root(cache, what))
    else:
        mapper = _mapper(what)
        for table in mapper.tables:
            if isinstance(table, Table):
                write = effects.touch().table(table)
                write.everything = not key
                write.images.append(_image(mapper, table, key))
    await effects.hold()
    await effects.release(committed=True)


def _root(cache: Cache, path: str) -> bytes:
    """Give the token of a path's first part, which all values below it carry; those of deeper parts only some do."""
    directory = Pattern(path).directory
    if directory is None:
        raise TemplateError(path, "names no directory: pass one such as 'user:*'")
    return directory_key((cache.prefix + directory.root).encode())


def _mapper(model: Any) -> Mapper[Any]:
    found = inspect(model, raiseerr=False)
    if not isinstance(found, Mapper):
        raise UsageError(f"what: {model!r} is no mapped class and no path such as 'user:*'")
    return found


def _image(mapper: Mapper[Any], table: Table, key: dict[str, Any]) -> dict[str, Any]:
    columns = {name: mapper.columns.get(name) for name in key}
    if unknown := next((name for name, column in columns.items() if column is None), None):
        raise UnknownField(unknown, mapper.class_.__name__, mapper.columns.keys())
    return {column.name: key[name] for name, column in columns.items() if column is not None and column.table is table}
