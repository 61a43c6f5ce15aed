"""The rows that the requests read and write, and what each of them may hold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict
from sqlalchemy import String, select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb import Crud
from fastrdb.cache.store import Claim, Command, Found, HoldCell, HoldTable, Reply, Store, keys_of

LIMIT = 1_000  # of a list: all rows of one owner


class Base(DeclarativeBase):
    """The table."""


class Account(Base):
    """A row that only its owner writes, and everybody reads."""

    __tablename__ = "cancelled_accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(100), unique=True)
    owner: Mapped[int] = mapped_column(index=True)
    value: Mapped[str] = mapped_column(String(100))


class AccountIn(BaseModel):
    """What creates a row."""

    email: str
    owner: int
    value: str


class AccountChange(BaseModel):
    """What changes a row."""

    value: str | None = None


class AccountOut(BaseModel):
    """What is read of a row."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    email: str
    owner: int
    value: str


AccountCrud = Crud[Account, AccountIn, AccountChange, AccountOut]


def account_crud() -> AccountCrud:
    """A crud of rows by id, by e-mail, and as lists of an owner."""
    return AccountCrud(
        Account,
        AccountOut,
        pattern=("account:id:{id}", "account:email:{email}"),
        list_pattern="account:owner:{owner}:page:{page}:limit:{limit}",
        exp=600,
    )


@dataclass(slots=True)
class Owner:
    """Who writes some rows, one request at a time.

    Attributes:
        number: Whose rows they are.
        ids: E-mail -> id, of the rows that are always there.
        singles, pair, group: E-mails of those, by how they are written: alone, or all together.
        possible: E-mail -> what the row may hold by now; ``None``: no row. Several, where a request was cancelled.
        together: E-mails of rows that are written together: all of them hold the same.
    """

    number: int
    ids: dict[str, int] = field(default_factory=dict)
    singles: tuple[str, ...] = ()
    pair: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    possible: dict[str, set[str | None]] = field(default_factory=dict)
    together: list[tuple[str, ...]] = field(default_factory=list)
    written: int = 0

    @classmethod
    def with_rows(cls, number: int) -> Owner:
        """Give an owner with the names of its rows."""
        singles, pair, group = (
            tuple(f"{kind}{at}.{number}@x" for at in range(many))
            for kind, many in (("single", 2), ("pair", 2), ("group", 4))
        )
        owner = cls(number, singles=singles, pair=pair, group=group, together=[pair, group])
        owner.possible = {email: {f"{number}:0"} for email in (*singles, *pair, *group)}
        return owner

    @property
    def fixed(self) -> tuple[str, ...]:
        """The e-mails of the rows that are always there."""
        return (*self.singles, *self.pair, *self.group)

    def next(self) -> str:
        """Give a value that was never written."""
        self.written += 1
        return f"{self.number}:{self.written}"

    def faults(self, rows: Sequence[AccountOut], *, whole: bool = True) -> list[str]:
        """Say what is wrong with rows that were read together: all that this owner has, where that is the *whole*."""
        values = {row.email: row.value for row in rows if row.owner == self.number}
        found = [f"owner {row.owner}'s row among those of {self.number}" for row in rows if row.owner != self.number]
        found += [f"{e} is {v!r}" for e, v in values.items() if not v.startswith(f"{self.number}:")]
        if whole and (lacking := set(self.fixed) - values.keys()):
            found.append(f"no {sorted(lacking)} in a list of {self.number}")
        for emails in self.together if whole else ():
            if len({values.get(email) for email in emails}) > 1:
                found.append(f"half a write: {[(email, values.get(email)) for email in emails]}")
        return found


async def stored(engine: AsyncEngine, emails: Sequence[str] | None = None) -> dict[str, AccountOut]:
    """Give what is committed, by e-mail; read past everything."""
    statement = select(Account.id, Account.email, Account.owner, Account.value)
    if emails is not None:
        statement = statement.where(Account.email.in_(emails))
    async with engine.connect() as connection:
        rows = (await connection.execute(statement)).all()
    return {row.email: AccountOut.model_validate(row) for row in rows}


class Noting:
    """A store that notes which cells were claimed or held.

    Attributes:
        marked: Their keys.
    """

    def __init__(self, store: Store, marked: set[bytes]) -> None:
        self._store, self.marked = store, marked

    @property
    def epoch(self) -> bytes:
        """As the store has it."""
        return self._store.epoch

    def read(self, entry: bytes, tokens: tuple[bytes, ...], *, bulk: bool = False) -> Awaitable[Found]:
        """Read."""
        return self._store.read(entry, tokens, bulk=bulk)

    async def run(self, commands: Sequence[Command], *, bulk: bool = False) -> list[Reply]:
        """Run, and note."""
        self._note(commands)
        return await self._store.run(commands, bulk=bulk)

    def post(self, commands: Sequence[Command], *, bulk: bool = False) -> Awaitable[list[Reply]]:
        """Post, and note."""
        self._note(commands)
        return self._store.post(commands, bulk=bulk)

    async def aclose(self) -> None:
        """Close."""
        await self._store.aclose()

    def _note(self, commands: Sequence[Command]) -> None:
        for command in commands:
            if isinstance(command, (Claim, HoldCell, HoldTable)):
                self.marked.update(keys_of(command))


async def until(holds: Callable[[], Awaitable[bool]], limit_s: float = 20.0) -> bool:
    """Wait until something holds; tell whether it came about in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limit_s
    while not await holds():
        if loop.time() > end:
            return False
        await asyncio.sleep(0.02)
    return True
