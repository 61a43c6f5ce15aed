"""Settings of an engine: the argument, else what the URL says, else the environment, else a default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from ..errors import SettingRefused
from . import environment

T = TypeVar("T")

_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Settings:
    """What an engine is built with.

    Attributes:
        pool_size: Connections that are kept; ``None`` where nobody said so, and PgBouncer keeps them.
        max_overflow: Connections beyond these, closed after use.
        pool_recycle: Seconds after which a connection is replaced; -1 for never.
        pool_timeout: Seconds to wait for a free connection.
        pool_pre_ping: Whether a connection is tried before it is used.
        echo: Whether statements are logged; ``"debug"`` logs rows, too.
        pgbouncer: PgBouncer in transaction mode stands before the database.
        application_name: What the database lists connections by.
    """

    pool_size: int | None
    max_overflow: int
    pool_recycle: int
    pool_timeout: float
    pool_pre_ping: bool
    echo: Any
    pgbouncer: bool
    application_name: str

    @classmethod
    def of(cls, arguments: Mapping[str, Any], in_url: Mapping[str, str], *, local: bool) -> Settings:
        """Settle each of them.

        Args:
            arguments: By name; ``None`` where an argument was left out.
            in_url: By name, as text.
            local: The database is a file: its connections neither age nor break.

        Raises:
            SettingRefused: A text in the URL or the environment means nothing.
        """

        def settle(name: str, parse: Callable[[str], T], read: Callable[[], T | None], default: T) -> T:
            if arguments.get(name) is not None:
                value: T = arguments[name]
                return value
            if name in in_url:
                return _parse(name, in_url[name], parse)
            found = read()
            return default if found is None else found

        pgbouncer = settle("pgbouncer", _flag, _nothing, False)
        return cls(
            pool_size=settle("pool_size", _optional(int), environment.pool_size, None if pgbouncer else 20),
            max_overflow=settle("max_overflow", int, environment.max_overflow, 30),
            pool_recycle=settle("pool_recycle", int, environment.pool_recycle, -1 if local else 3600),
            pool_timeout=settle("pool_timeout", float, environment.pool_timeout, 30.0),
            pool_pre_ping=settle("pool_pre_ping", _flag, _nothing, not local),
            echo=settle("echo", _echo, environment.echo, cast("Any", False)),
            pgbouncer=pgbouncer,
            application_name=settle("application_name", str, environment.app_name, "fastrdb"),
        )


def _parse(name: str, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except (ValueError, KeyError):
        raise SettingRefused(name, f"the URL says {text!r}, which means nothing here") from None


def _flag(text: str) -> bool:
    return _WORDS[text.lower()]


def _echo(text: str) -> Any:
    return "debug" if text.lower() == "debug" else _flag(text)


def _optional(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    return parse


def _nothing() -> None:
    return None
