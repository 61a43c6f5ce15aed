"""Flushes of watched sessions: what is sent around one and within it, and what it changes that the session never saw."""

from typing import Any

import pytest
from sqlalchemy import event, update
from sqlalchemy.orm import Session

from tests.market import Market, Ware


@pytest.mark.parametrize("how", ["expunged", "refused"])
async def test_a_flush_that_wrote_nothing_says_nothing(market: Market, how: str) -> None:
    """After a flush that a listener emptied or stopped, a statement drops its table."""
    added = Ware(id=3, shop_id=1, name="plum")

    def listen(session: Session, *_: object) -> None:
        if how == "refused":
            raise ValueError(how)
        session.expunge(added)

    async with market.factory() as session:
        session.add(added)
        event.listen(session.sync_session, "before_flush", listen)
        if how == "refused":
            with pytest.raises(ValueError, match=how):
                await session.flush()
            session.expunge(added)
        else:
            await session.flush()
        await session.execute(update(Ware).values(name="quince"))
        await session.commit()
    assert await market.ware(1) == "quince"


@pytest.mark.parametrize("where", ["before_flush", "after_update"])
async def test_what_a_listener_sends_drops_its_table(market: Market, where: str) -> None:
    """A statement that a listener sends is no row of the flush, even of the same table: all of that is dropped."""
    statement = update(Ware).where(Ware.id == 2).values(name="melon")

    def of_session(session: Session, *_: object) -> None:
        session.execute(statement, execution_options={"synchronize_session": False})

    def of_mapper(mapper: Any, connection: Any, target: Any) -> None:
        connection.execute(statement)

    async with market.factory() as session:
        (await session.get_one(Ware, 1)).name = "quince"
        target, listener = (Ware, of_mapper) if where == "after_update" else (session.sync_session, of_session)
        event.listen(target, where, listener)
        try:
            await session.commit()
        finally:
            event.remove(target, where, listener)
    assert await market.listed(1) == ["quince", "melon"]
    assert (await market.ware(1), await market.ware(2)) == ("quince", "melon")
