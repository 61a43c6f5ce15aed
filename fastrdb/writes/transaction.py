"""Ties the transaction of a session to the caches: who commits, and what happens around it.

| the session's transaction                 | holds at             | released                    | writes through |
|-------------------------------------------|----------------------|-----------------------------|----------------|
| none, or autobegun: ours                  | our COMMIT           | after ``commit()`` returned | if none before |
| begun by the caller, nested, commit=False | the caller's COMMIT  | at the end of the root      | never          |
| of a Connection the session is bound to   | that COMMIT          | never: the hold runs out    | never          |
| AUTOCOMMIT                                | before the statement | after it                    | never          |
| COMMIT with an unknown outcome            |                      | never: the hold runs out    | never          |
"""

from __future__ import annotations

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import await_only

from ..db.transactions import Transactions
from .announcements import announce, take
from .effects import Effects
from .outcome import did_not_commit, finish
from .turns import end_turn

_KEY = "fastrdb_effects"
_COMMITTED = "fastrdb_committed"  # the session's transaction whose COMMIT is done
_OURS = "fastrdb_commit"  # the COMMIT under way is ours, and so is what comes after it


def effects_on(connection: Connection, transactions: Transactions) -> Effects:
    """Give the effects of the connection's open transaction, which its ``commit`` event will find."""
    transaction = transactions.take_up(connection)
    if not isinstance(transaction.effects, Effects):
        transaction.effects = Effects(transaction)
    return transaction.effects


async def commit(session: AsyncSession, effects: Effects | None, *, close: bool, tells: bool = False) -> None:
    """Commit a transaction that is ours: hold, COMMIT and release in one task, which a cancelled caller waits for.

    Args:
        session: Whose transaction it is.
        effects: What to hold and to release; ``None``: nothing.
        close: Close the session, too, once it has committed.
        tells: There are announcements to make after it, in the same task.
    """
    if effects is not None or tells:
        await finish(_commit(session, effects, close))
        return
    await session.commit()
    if close:
        await finish(session.close())


async def _commit(session: AsyncSession, effects: Effects | None, close: bool) -> None:
    sync = session.sync_session
    sync.info[_OURS] = True
    try:
        await session.commit()
    except BaseException as error:
        take(sync)
        if effects is not None and effects.reached_commit:
            await conclude(effects, error)
        raise
    finally:
        del sync.info[_OURS]
    end_turn(sync)  # a hook may write in it
    told = take(sync)
    if effects is not None:
        await effects.release(committed=True, meanwhile=session.close if close else None)
    elif close:
        await session.close()
    await announce(told)


async def conclude(effects: Effects, error: BaseException | None) -> None:
    """End the effects of a COMMIT that failed, or that was not even sent."""
    if not effects.sent or did_not_commit(error):
        await effects.release(committed=False)
    else:
        effects.leave()


def follow(session: Session, effects: Effects) -> None:
    """Release, and tell what there is to tell, when the caller's transaction has ended."""
    following: list[Effects] = session.info.setdefault(_KEY, [])
    if effects not in following:
        following.append(effects)
    if not event.contains(session, "after_transaction_end", _on_end):
        event.listen(session, "after_commit", _on_commit)
        event.listen(session, "after_transaction_end", _on_end)


def _on_commit(session: Session) -> None:
    # Also fires for savepoints, where no COMMIT was reached.
    if not session.in_nested_transaction():
        session.info[_COMMITTED] = session.get_transaction()  # the end of which may never be told
        for effects in session.info.get(_KEY, ()):
            if effects.reached_commit:
                effects.committed()


def _on_end(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is not None:
        return
    committed = session.info.pop(_COMMITTED, None) is transaction
    reached = [effects for effects in session.info.pop(_KEY, []) if effects.reached_commit]
    told = [] if _OURS in session.info else take(session)
    for effects in reached:
        effects.stop_renewing()  # of all, even if this is cancelled at the first
    for effects in reached:
        if committed and not effects.failed:  # it may be left from a transaction before, whose end nobody told
            await_only(effects.release(committed=True))
        else:
            await_only(conclude(effects, effects.transaction.failure))
    if committed and told:
        await_only(finish(announce(told)))
