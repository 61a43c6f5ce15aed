"""Which database Alembic migrates."""

from __future__ import annotations

import os
from collections.abc import Mapping

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from ..errors import AlembicError


def get_alembic_config_url(
    url: str | None = None,
    *,
    fallback: str | None = None,
    environ: Mapping[str, str] = os.environ,
    escape: bool = True,
) -> str:
    """Give the URL for ``config.set_main_option("sqlalchemy.url", …)``: *url*, else ``$DATABASE_URL``, else *fallback*.

    Args:
        url: What is used where it is given.
        fallback: What is used where nothing else is there.
        environ: Where ``DATABASE_URL`` is looked up.
        escape: Double each ``%``, as Alembic's configuration wants it; ``False`` for ``create_engine``.

    Raises:
        AlembicError: There is none, or it is no URL; the message does not repeat it.
    """
    found = url or environ.get("DATABASE_URL") or fallback
    if not found:
        raise AlembicError("there is no database URL: pass one, or set DATABASE_URL")
    try:
        make_url(found)
    except (ArgumentError, ValueError):
        raise AlembicError("the database URL cannot be read: write dialect+driver://user:password@host/name") from None
    return found.replace("%", "%%") if escape else found
