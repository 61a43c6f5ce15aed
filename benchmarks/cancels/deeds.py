"""The requests: every kind of read and write, with what its answer must be."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from fastrdb import Cache, NotFound

from .accounts import LIMIT, AccountChange, AccountCrud, AccountIn, AccountOut, Owner

Check = Callable[[Any], list[str]]


@dataclass(slots=True)
class Deed:
    """One request.

    Attributes:
        kind: Its name.
        call: Does it, with a session or a factory.
        check: Says what is wrong with the answer.
        writes: E-mail -> value that it writes; ``None``: the row goes.
        keeps: What it would write is written only where there is no row.
        session: It needs a session, which it commits itself.
    """

    kind: str
    call: Callable[[Any], Awaitable[Any]]
    check: Check = lambda answer: []
    writes: dict[str, str | None] = field(default_factory=dict)
    keeps: bool = False
    session: bool = False


class Deeds:
    """Draws requests.

    Args:
        crud, cache: What is asked.
        owners: Whose rows are read.
        chance: What draws.
    """

    def __init__(self, crud: AccountCrud, cache: Cache, owners: Sequence[Owner], chance: random.Random) -> None:
        self._crud, self._cache, self._owners, self._chance = crud, cache, owners, chance
        self.reads = [
            self.get, self.get_by_email, self.get_or_none, self.get_json, self.exists, self.get_multi, self.count,
            self.page, self.get_by_keys, self.stream,
        ]  # fmt: skip
        self.writes = [
            self.update, self.create, self.delete, self.upsert, self.create_multi, self.update_multi,
            self.get_or_create, self.transaction,
        ]  # fmt: skip

    @property
    def kinds(self) -> list[str]:
        """The names of all kinds."""
        return [make.__name__ for make in (*self.reads, *self.writes)]

    def draw(self, me: Owner) -> Deed:
        """Give a request of an owner's: reads and writes alike."""
        return self._chance.choice(self._chance.choice((self.reads, self.writes)))(me)

    # -- reads, of anybody's rows

    def _one(self, kind: str, call: Callable[..., Awaitable[Any]], *, by_email: bool = False) -> Deed:
        owner = self._chance.choice(self._owners)
        email = self._chance.choice(owner.fixed)
        key = {"email": email} if by_email else {"id": owner.ids[email]}

        def check(answer: Any) -> list[str]:
            if isinstance(answer, bytes):
                answer = AccountOut.model_validate(json.loads(answer))
            if isinstance(answer, bool):
                return [] if answer else [f"{email} does not exist"]
            if (answer.id, answer.email) != (owner.ids[email], email):
                return [f"asked for {email}, got {answer!r}"]
            return owner.faults([answer], whole=False)

        return Deed(kind, lambda db: call(db=db, redis=self._cache, **key), check)

    def get(self, me: Owner) -> Deed:
        """One row by its id."""
        return self._one("get", self._crud.get)

    def get_by_email(self, me: Owner) -> Deed:
        """One row by its other key."""
        return self._one("get_by_email", self._crud.get, by_email=True)

    def get_or_none(self, me: Owner) -> Deed:
        """The same, of a row that may be missing."""
        return self._one("get_or_none", self._crud.get_or_none)

    def get_json(self, me: Owner) -> Deed:
        """The same as bytes."""
        return self._one("get_json", self._crud.get_json)

    def exists(self, me: Owner) -> Deed:
        """Whether a row is there."""
        return self._one("exists", self._crud.exists, by_email=True)

    def get_multi(self, me: Owner) -> Deed:
        """All rows of somebody."""
        owner = self._chance.choice(self._owners)
        return Deed(
            "get_multi",
            lambda db: self._crud.get_multi(db=db, redis=self._cache, limit=LIMIT, owner=owner.number),
            owner.faults,
        )

    def count(self, me: Owner) -> Deed:
        """How many somebody has."""
        owner = self._chance.choice(self._owners)
        return Deed(
            "count",
            lambda db: self._crud.count(db=db, redis=self._cache, owner=owner.number),
            lambda number: [] if number >= len(owner.fixed) else [f"{number} rows of {owner.number}"],
        )

    def page(self, me: Owner) -> Deed:
        """All rows of somebody, with their number."""
        owner = self._chance.choice(self._owners)
        return Deed(
            "page",
            lambda db: self._crud.page(db=db, redis=self._cache, limit=LIMIT, owner=owner.number),
            lambda page: owner.faults(page.data),
        )

    def get_by_keys(self, me: Owner) -> Deed:
        """Many rows by their ids."""
        wanted = {owner.ids[email]: email for owner in self._chance.sample(self._owners, 2) for email in owner.fixed}
        return Deed(
            "get_by_keys",
            lambda db: self._crud.get_by_keys(db=db, redis=self._cache, keys=list(wanted)),
            lambda rows: [] if {row.id: row.email for row in rows} == wanted else [f"asked for {wanted}, got {rows!r}"],
        )

    def stream(self, me: Owner) -> Deed:
        """All rows of somebody, by a cursor."""
        owner = self._chance.choice(self._owners)

        async def call(db: Any) -> list[AccountOut]:
            async with aclosing(self._crud.stream(db=db, batch=3, owner=owner.number)) as rows:
                return [row async for row in rows]

        return Deed("stream", call, owner.faults)

    # -- writes, of one's own rows

    def update(self, me: Owner) -> Deed:
        """One row."""
        email, value = self._chance.choice(me.singles), me.next()
        change = AccountChange(value=value)
        return Deed(
            "update",
            lambda db: self._crud.update(db=db, redis=self._cache, obj_in=change, id=me.ids[email]),
            _says(email, value),
            {email: value},
        )

    def create(self, me: Owner) -> Deed:
        """A new row."""
        made = self._new(me)
        return Deed(
            "create",
            lambda db: self._crud.create(db=db, redis=self._cache, obj_in=made),
            _says(made.email, made.value),
            {made.email: made.value},
        )

    def delete(self, me: Owner) -> Deed:
        """A row that may be there."""
        email = self._made(me)

        async def call(db: Any) -> bool:
            try:
                await self._crud.delete(db=db, redis=self._cache, email=email)
            except NotFound:
                return False
            return True

        def check(deleted: bool) -> list[str]:
            return [] if deleted or None in me.possible[email] else [f"{email} was not found"]

        return Deed("delete", call, check, {email: None})

    def upsert(self, me: Owner) -> Deed:
        """A row that may be there."""
        made = AccountIn(email=self._made(me), owner=me.number, value=me.next())
        return Deed(
            "upsert",
            lambda db: self._crud.upsert(db=db, redis=self._cache, obj_in=made, conflict_fields=["email"]),
            lambda answer: _says(made.email, made.value)(answer[0]),
            {made.email: made.value},
        )

    def get_or_create(self, me: Owner) -> Deed:
        """The same, left as it is if it is there."""
        made = AccountIn(email=self._made(me), owner=me.number, value=me.next())
        return Deed(
            "get_or_create",
            lambda db: self._crud.get_or_create(db=db, redis=self._cache, obj_in=made, conflict_fields=["email"]),
            lambda answer: [] if answer[0].email == made.email else [f"asked for {made.email}, got {answer!r}"],
            {made.email: made.value},
            keeps=True,
        )

    def create_multi(self, me: Owner) -> Deed:
        """Three new rows."""
        value = me.next()
        made = [AccountIn(email=f"batch{at}.{value}@x", owner=me.number, value=value) for at in range(3)]
        emails = tuple(each.email for each in made)
        me.together.append(emails)
        return Deed(
            "create_multi",
            lambda db: self._crud.create_multi(db=db, redis=self._cache, instances=made),
            lambda rows: [] if [row.email for row in rows] == [*emails] else [f"created {emails}, got {rows!r}"],
            dict.fromkeys(emails, value),
        )

    def update_multi(self, me: Owner) -> Deed:
        """Four rows."""
        value = me.next()
        items = [(me.ids[email], AccountChange(value=value)) for email in me.group]
        return Deed(
            "update_multi",
            lambda db: self._crud.update_multi(db=db, redis=self._cache, items=items),
            lambda rows: [] if {row.value for row in rows} == {value} else [f"wrote {value}, got {rows!r}"],
            dict.fromkeys(me.group, value),
        )

    def transaction(self, me: Owner) -> Deed:
        """Two rows, one after the other, in a transaction of the caller's own."""
        value = me.next()

        async def call(session: AsyncSession) -> None:
            async with session.begin():
                for email in me.pair:
                    change = AccountChange(value=value)
                    await self._crud.update(db=session, redis=self._cache, obj_in=change, id=me.ids[email])

        return Deed("transaction", call, writes=dict.fromkeys(me.pair, value), session=True)

    def _new(self, me: Owner) -> AccountIn:
        value = me.next()
        return AccountIn(email=f"made.{value}@x", owner=me.number, value=value)

    def _made(self, me: Owner) -> str:
        made = [email for email in me.possible if email.startswith("made.")]
        email = self._chance.choice(made[-5:]) if made else self._new(me).email
        me.possible.setdefault(email, {None})
        return email


def _says(email: str, value: str) -> Check:
    def check(row: AccountOut) -> list[str]:
        return [] if (row.email, row.value) == (email, value) else [f"wrote {value!r} to {email}, got {row!r}"]

    return check
