"""Whose eyes a call reads with, where the database does not show everybody the same rows.

A value that was read by a session with settings (its tenant, its user, its search path) lies under an entry of its
own: the row's, or the list's, with a suffix that says them, as it has one for further filters. It ages by the same
tokens as those: a writer need not know whose eyes saw a row to drop what they saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from ..context import current_tenant
from ..db.restrictions import Restrictions
from ..db.session_settings import Settings, settings_of, telling
from ..db.sessions import Place, SessionFactory

TENANT_SETTING: Final = "app.current_tenant_id"


@dataclass(frozen=True, slots=True)
class Sight:
    """How the cache is used by a caller who may not see all rows.

    Attributes:
        extras: What the key must say of it; ``None``: nothing.
        reason: Why the cache is not used, if so.
    """

    extras: object | None = None
    reason: str | None = None


NOT_ASKED: Final = Sight(reason="the database was not asked yet what it hides")
_NO_TENANT: Final = Sight(reason="row-level security, and no tenant")


def sight_of(
    db: AsyncSession | SessionFactory, place: Place, known: Restrictions | None, tables: frozenset[str]
) -> tuple[AsyncSession | SessionFactory, Sight | None]:
    """Give the session or factory to use, and whose eyes it reads with; ``None``: those of everybody.

    Args:
        db: A factory's sessions get the tenant of ``fastrdb.context`` where one of the tables hides rows.
        known: What the place hides, if it was asked.
        tables: Full names of the tables that are read.
    """
    if place.dialect != "postgresql" or place.bound:
        return db, None
    if known is None:
        return db, NOT_ASKED
    hidden = known.concern(tables, translated=place.options.schemas is not None)
    if isinstance(db, AsyncSession):
        settings = settings_of(db)
        return db, _with(known, settings) if settings else _NO_TENANT if hidden else None
    tenant = current_tenant() if hidden else None
    if tenant is None:
        return db, _NO_TENANT if hidden else None
    settings = ((TENANT_SETTING, tenant),)
    return telling(db, settings), _with(known, settings)


def _with(known: Restrictions, settings: Settings) -> Sight:
    return Sight(extras=[known.role, settings])
