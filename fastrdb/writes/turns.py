"""One write at a time in a session: two tasks that shared one would commit, or roll back, half of each other's work."""

from __future__ import annotations

from sqlalchemy.orm import Session

from ..errors import SessionRefused

_KEY = "fastrdb_turn"


def take_turn(session: Session) -> object:
    """Begin a write, and give what ends it.

    Raises:
        SessionRefused: Another one is under way, so another task uses the session.
    """
    if _KEY in session.info:
        raise SessionRefused(
            "db: another task writes in this session now, as with asyncio.gather; a session is for one task: "
            "await one write after the other, or pass the async_sessionmaker, or a session for each task"
        )
    turn = session.info[_KEY] = object()
    return turn


def end_turn(session: Session, turn: object | None = None) -> None:
    """End a write, if it is still under way; by default whichever is."""
    if turn is None or session.info.get(_KEY) is turn:
        session.info.pop(_KEY, None)
