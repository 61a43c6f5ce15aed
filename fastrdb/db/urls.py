"""Database URLs: checked, with an async driver, and without the settings that are not the driver's."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..errors import MissingExtra, UrlRefused

_DIALECTS = {"postgresql": "postgresql", "postgres": "postgresql", "sqlite": "sqlite", "mysql": "mysql"}
_DIALECTS["mariadb"] = "mariadb"
_DRIVERS = {
    "postgresql": ("asyncpg", "psycopg", "psycopg_async"),
    "sqlite": ("aiosqlite",),
    "mysql": ("asyncmy", "aiomysql"),
    "mariadb": ("asyncmy", "aiomysql"),
}
_PACKAGES = {"psycopg_async": "psycopg"}
_EXTRAS = {"asyncpg": "asyncpg", "psycopg": "pg", "asyncmy": "mysql", "aiomysql": "mysql"}
_FORM = "write postgresql://user:password@host:5432/name, mysql://…, mariadb://… or sqlite:///path"
SETTINGS = frozenset({"pool_size", "max_overflow", "pool_recycle", "pool_timeout", "pool_pre_ping"})
SETTINGS |= {"echo", "pgbouncer", "application_name"}


@dataclass(frozen=True)
class Target:
    """What a URL says.

    Attributes:
        url: For SQLAlchemy, with an async driver.
        settings: What its query says about the engine, by name and as text.
        connect_args: What its query says about connections, in the driver's own words.
    """

    url: URL
    settings: dict[str, str]
    connect_args: dict[str, Any]

    @classmethod
    def of(cls, given: str | URL) -> Target:
        """Take a URL apart.

        A URL without a driver gets asyncpg, aiosqlite or asyncmy. Parameters that are settings of the engine
        (``?pool_size=5``, ``?pgbouncer=true`` …) and libpq's ``sslmode`` are taken out of it.

        Raises:
            UrlRefused: It is malformed, or its driver is unknown or sync.
            MissingExtra: The driver is not installed.
        """
        url = async_url(given)
        query = {name: value if isinstance(value, str) else value[-1] for name, value in url.query.items()}
        settings = {name: query[name] for name in SETTINGS & query.keys()}
        taken = set(settings)
        connect_args: dict[str, Any] = {}
        if url.get_driver_name() == "asyncpg" and "sslmode" in query:
            connect_args["ssl"] = query["sslmode"]
            taken.add("sslmode")
        if "password" in query and url.password is None:
            taken.add("password")
            url = url.set(password=query["password"])  # there it is masked wherever the URL is shown
        return cls(url.difference_update_query(taken), settings, connect_args)


def async_url(given: str | URL) -> URL:
    """Give a URL with an installed async driver.

    Raises:
        UrlRefused: It is malformed, or its driver is unknown or sync. The message does not repeat the URL.
        MissingExtra: The driver is not installed.
    """
    url = _parsed(given)
    name, _, driver = url.drivername.partition("+")
    dialect = _DIALECTS.get(name)
    if dialect is None:
        raise UrlRefused("url", f"no database {name!r}; {_FORM}")
    drivers = _DRIVERS[dialect]
    if driver and driver not in drivers:
        raise UrlRefused("url", f"driver {driver!r} is unknown, or not async; write {dialect}+{drivers[0]}://…")
    driver = driver or drivers[0]
    package = _PACKAGES.get(driver, driver)
    if find_spec(package) is None:
        raise MissingExtra(package, _EXTRAS.get(package, "all"))
    return url.set(drivername=f"{dialect}+{driver}")


def _parsed(given: str | URL) -> URL:
    try:
        url = make_url(given.strip() if isinstance(given, str) else given)
    except (ArgumentError, ValueError):  # whose text may have the password in it
        url = None
    if url is None:
        raise UrlRefused("url", f"malformed; {_FORM}")
    if "@" in (url.host or ""):
        raise UrlRefused("url", "several '@'; write one that belongs to the user or the password as %40")
    return url
