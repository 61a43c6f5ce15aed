"""The environment variables that fastrdb knows; the only module that reads any.

A variable that is not set, or is empty, counts as absent. Arguments and what a URL says win over all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import URL

from ..errors import SettingRefused

T = TypeVar("T")

_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})
_PARTS = ("DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD")


def database_url() -> str:
    """Give ``DATABASE_URL``, else the URL that the ``DB_…`` variables add up to.

    Raises:
        SettingRefused: Neither is there, or the parts are not complete.
    """
    given = _text("DATABASE_URL")
    if given is not None:
        return given
    if not any(map(_text, _PARTS)):
        raise SettingRefused("DATABASE_URL", "not set: pass a url, call configure(url=…), or set the variable")
    return get_database_url_from_env()


def get_database_url_from_env() -> str:
    """Give the URL that ``DB_HOST``, ``DB_PORT``, ``DB_NAME``, ``DB_USER``, ``DB_PASSWORD`` and ``DB_DRIVER`` make.

    The driver is ``postgresql+asyncpg`` unless ``DB_DRIVER`` names another one. A server needs ``DB_HOST`` and
    ``DB_NAME``, SQLite only ``DB_NAME``: the path of its file. User and password may have any characters.

    Raises:
        SettingRefused: A variable is missing, or the port is no number. It is a ValueError, too.
    """
    driver = _text("DB_DRIVER") or "postgresql+asyncpg"
    needed = ["DB_NAME"] if driver.startswith("sqlite") else ["DB_HOST", "DB_NAME"]
    missing = [name for name in needed if _text(name) is None]
    if missing:
        raise SettingRefused(", ".join(missing), "not set: set it, or DATABASE_URL instead of all DB_… variables")
    url = URL.create(
        driver,
        username=_text("DB_USER"),
        password=_text("DB_PASSWORD"),
        host=None if driver.startswith("sqlite") else _text("DB_HOST"),
        port=_whole("DB_PORT", least=1),
        database=_text("DB_NAME"),
    )
    return url.render_as_string(hide_password=False)


def echo() -> bool | str | None:
    """Give ``SQLALCHEMY_ECHO``: whether statements are logged, or ``"debug"``, for their rows as well."""
    if (_text("SQLALCHEMY_ECHO") or "").lower() == "debug":
        return "debug"
    return _flag("SQLALCHEMY_ECHO")


def pool_size() -> int | None:
    """Give ``DB_POOL_SIZE``, in connections."""
    return _whole("DB_POOL_SIZE", least=0)


def max_overflow() -> int | None:
    """Give ``DB_MAX_OVERFLOW``, in connections; -1 for no limit."""
    return _whole("DB_MAX_OVERFLOW", least=-1)


def pool_recycle() -> int | None:
    """Give ``DB_POOL_RECYCLE``, in seconds; -1 for never."""
    return _whole("DB_POOL_RECYCLE", least=-1)


def pool_timeout() -> float | None:
    """Give ``DB_POOL_TIMEOUT``, in seconds."""
    return _parsed("DB_POOL_TIMEOUT", float, lambda value: value >= 0, "a number of seconds")


def app_name() -> str | None:
    """Give ``APP_NAME``, which the database lists connections by."""
    return _text("APP_NAME")


def redis_url() -> str:
    """Give ``REDIS_URL``.

    Raises:
        SettingRefused: It is not set.
    """
    given = _text("REDIS_URL")
    if given is None:
        raise SettingRefused("REDIS_URL", "not set: call configure(redis_url=…), or set the variable")
    return given


def redis_max_connections() -> int | None:
    """Give ``REDIS_MAX_CONNECTIONS``."""
    return _whole("REDIS_MAX_CONNECTIONS", least=1)


def _text(name: str) -> str | None:
    return os.environ.get(name) or None


def _whole(name: str, *, least: int) -> int | None:
    return _parsed(name, int, lambda value: value >= least, f"a whole number of at least {least}")


def _flag(name: str) -> bool | None:
    def parse(text: str) -> bool:
        if text.lower() not in _TRUE | _FALSE:
            raise ValueError(text)
        return text.lower() in _TRUE

    return _parsed(name, parse, lambda _: True, "true or false")


def _parsed(name: str, parse: Callable[[str], T], fits: Callable[[T], bool], wanted: str) -> T | None:
    text = _text(name)
    if text is None:
        return None
    try:
        value = parse(text.strip())
    except ValueError:
        raise SettingRefused(name, f"{wanted} is needed, not {text!r}") from None
    if not fits(value):
        raise SettingRefused(name, f"{wanted} is needed, not {text!r}")
    return value
