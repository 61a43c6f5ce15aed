"""What is told after a transaction has committed: collected while it is open, without what savepoints took back."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple, Protocol

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

_KEY = "fastrdb_announcements"


class Announcer(Protocol):
    """Who has something to tell."""

    def announce(self, changes: Sequence[Any]) -> Awaitable[None]:
        """Tell what one transaction changed; called after its COMMIT."""
        ...


class _Note(NamedTuple):
    announcer: Announcer
    change: Any
    within: SessionTransaction | None


def note(session: Session, announcer: Announcer, change: Any) -> None:
    """Remember a change of the open transaction, as long as it is not rolled back."""
    notes: list[_Note] = session.info.setdefault(_KEY, [])
    notes.append(_Note(announcer, change, session.get_nested_transaction() or session.get_transaction()))
    if not event.contains(session, "after_soft_rollback", _on_rollback):
        event.listen(session, "after_soft_rollback", _on_rollback)


def take(session: Session) -> list[tuple[Announcer, list[Any]]]:
    """Give what there is to tell, by who tells it, in the order of their first changes; then there is nothing."""
    found: dict[int, tuple[Announcer, list[Any]]] = {}
    for announcer, change, _ in session.info.pop(_KEY, ()):
        found.setdefault(id(announcer), (announcer, []))[1].append(change)
    return list(found.values())


async def announce(told: Sequence[tuple[Announcer, list[Any]]]) -> None:
    """Tell it."""
    for announcer, changes in told:
        await announcer.announce(changes)


def _on_rollback(session: Session, ended: SessionTransaction) -> None:
    notes: list[_Note] = session.info.get(_KEY, [])
    notes[:] = [each for each in notes if not _lies_in(each.within, ended)]


def _lies_in(transaction: SessionTransaction | None, outer: SessionTransaction) -> bool:
    while transaction is not None:
        if transaction is outer:
            return True
        transaction = transaction.parent
    return False
