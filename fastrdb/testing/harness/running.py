"""Runs a scenario: starts the processes, kills some, starts others in their place, and adds up what they tell."""

from __future__ import annotations

import asyncio
import multiprocessing
import secrets
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from random import Random
from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from fastrdb.errors import FastRDBError
from fastrdb.writes.outbox import outbox_table

from . import truth
from .builtin import Builtin
from .court import EXAMPLES, Court
from .deeds import Note
from .outages import Conductor
from .scenario import Report, Scenario
from .storm import plain_client, sweep
from .subject import Subject
from .worker import News, Orders, work

GRACE_S = 5.0
KILLED_READERS = 0.2  # of all who are killed

Progress = Callable[[Report], None]


class WorkerFailed(FastRDBError):
    """A process of the harness ended by itself; the message has its traceback."""


def run(scenario: Scenario, progress: Progress | None = None) -> Report:
    """Let processes read and write through a crud, kill writers at random, and count stale reads.

    Makes a schema of its own in the database, and a trigger on the subject's table; both are gone afterwards. Must
    not be called from within an event loop.

    Args:
        scenario: What to run.
        progress: Called every now and then with the report so far.

    Raises:
        WorkerFailed: A process ended with an exception.
    """
    name = f"fastrdb_harness_{secrets.token_hex(4)}"
    builtin = isinstance(scenario.subjects[0], Builtin)
    scenario = replace(scenario, subjects=tuple(_placed(subject, name) for subject in scenario.subjects))
    crew = Crew(scenario, name, progress)
    try:
        asyncio.run(_set_up(scenario, name, with_table=builtin))
        return crew.run()
    finally:
        crew.end()
        asyncio.run(_tear_down(scenario, name, crew.keys))


def _placed(subject: Callable[[], Subject], schema: str) -> Callable[[], Subject]:
    return replace(subject, schema=schema) if isinstance(subject, Builtin) else subject


async def _set_up(scenario: Scenario, schema: str, *, with_table: bool) -> None:
    engine = create_async_engine(scenario.postgres)
    try:
        await truth.set_up(engine, scenario.subjects[0](), schema, with_table=with_table)
        if scenario.outbox:
            async with engine.begin() as connection:
                await connection.run_sync(outbox_table(MetaData(), schema=schema).create)
    finally:
        await engine.dispose()


async def _tear_down(scenario: Scenario, schema: str, keys: set[bytes]) -> None:
    engine = create_async_engine(scenario.postgres)
    try:
        await truth.tear_down(engine, schema)
    finally:
        await engine.dispose()
    async with plain_client(scenario.redis) as redis:
        await sweep(redis, list(keys))


class Crew:
    """The processes of one run.

    Attributes:
        report: What they have told so far.
        keys: The cells that they have seen.
    """

    def __init__(self, scenario: Scenario, name: str, progress: Progress | None) -> None:
        self.report, self.keys = Report(scenario.seed), set[bytes]()
        self._scenario, self._name, self._progress = replace(scenario, outages=()), name, progress
        self._random = Random(scenario.seed)
        self._conductor = Conductor(scenario.outages, scenario.outage_every_s, Random(scenario.seed))
        self._court = Court(scenario) if scenario.outages else None
        self._members: dict[Connection, _Member] = {}
        self._lives = 0
        self._began = time.monotonic()
        self._stopping = False
        # Forks of a process that has imported everything and done nothing: a start costs milliseconds, and no thread or
        # connection of ours gets into them.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([work.__module__])

    def run(self) -> Report:
        """Run until enough was read, the time is up, or, if so wanted, the first stale read."""
        scenario, report = self._scenario, self.report
        for number in range(scenario.readers):
            self._start(reads=True, number=number)
        for number in range(scenario.writers):
            self._start(reads=False, number=number)
        kill_at = self._next_kill()
        self._conductor.start()
        while self._goes_on():
            self._listen(0.05)
            self._judge()
            if time.monotonic() >= kill_at:
                self._kill()
                kill_at = self._next_kill()
            report.seconds = time.monotonic() - self._began
            if self._progress is not None:
                self._progress(report)
        self._conductor.stop()
        self._stop()
        self._judge()
        return report

    def end(self) -> None:
        """Kill who is still there."""
        self._conductor.stop()
        self._stopping = True
        for member in list(self._members.values()):
            member.process.kill()
            self._forget(member)

    def _goes_on(self) -> bool:
        scenario, report = self._scenario, self.report
        if report.stale and scenario.stop_at_first and self._conductor.over >= scenario.outages_wanted:
            return False
        wanted = report.reads < scenario.reads or self._conductor.over < scenario.outages_wanted
        return wanted and report.seconds < scenario.limit_s

    # -- life and death

    def _start(self, *, reads: bool, number: int) -> None:
        ours, theirs = self._context.Pipe()
        orders = Orders(
            self._scenario,
            self._name,
            f"{self._name}:",
            reads,
            number,
            self._lives,
            self._began,
            outages=self._court is not None,
        )
        self._lives += 1
        process = self._context.Process(target=work, args=(orders, theirs), name=orders.name, daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends with them
        self._members[ours] = _Member(orders, process, ours)

    def _next_kill(self) -> float:
        every_s = self._scenario.weather.kill_every_s
        return time.monotonic() + self._random.expovariate(1 / every_s) if every_s else float("inf")

    def _kill(self) -> None:
        readers = self._random.random() < KILLED_READERS
        members = [member for member in self._members.values() if member.orders.reads == readers]
        if members:
            self._random.choice(members).process.kill()

    def _stop(self) -> None:
        self._stopping = True
        for member in self._members.values():
            with suppress(OSError):  # it was killed just now
                member.pipe.send("stop")
        until = time.monotonic() + GRACE_S
        while self._members and time.monotonic() < until:
            self._listen(0.05)

    # -- news

    def _listen(self, timeout_s: float) -> None:
        for pipe in wait(list(self._members), timeout_s):
            assert isinstance(pipe, Connection)
            member = self._members[pipe]
            try:
                self._add(pipe.recv())
            except (EOFError, OSError):  # the end, maybe in the midst of a message
                self._ended(member)

    def _ended(self, member: _Member) -> None:
        code = self._forget(member)
        if self._court is not None and not member.orders.reads:
            self._court.fates.died(str(member.orders.life), time.monotonic())
        if self._stopping:
            return
        if code != -signal.SIGKILL:
            raise WorkerFailed(f"{member.orders.name} ended with exit code {code}")
        self.report.kills += 1
        self._start(reads=member.orders.reads, number=member.orders.number)

    def _forget(self, member: _Member) -> int | None:
        del self._members[member.pipe]
        member.pipe.close()
        member.process.join()
        code: int | None = member.process.exitcode
        member.process.close()
        return code

    def _judge(self) -> None:
        """Tell bounded reads from stale ones, as far as all is known that there is to know."""
        if self._conductor.failure is not None:
            raise self._conductor.failure
        if self._court is not None:
            self._court.judge(self._conductor.spans, self.report, last=self._stopping)

    def _add(self, news: News | Note) -> None:
        if isinstance(news, Note):
            if self._court is not None:
                self._court.fates.add(news)
            return
        if news.failure is not None:
            raise WorkerFailed(news.failure)
        report = self.report
        report.reads += news.reads
        report.stale += news.stale
        if self._court is not None:
            self._court.take(news.doubts)
        report.examples += news.examples[: EXAMPLES - len(report.examples)]
        report.writes.update(news.writes)
        report.cache.update(news.cache)
        report.slowest_hold_s = max(report.slowest_hold_s, news.slowest_hold_s)
        self.keys.update(news.keys)


class _Member:
    def __init__(self, orders: Orders, process: Any, pipe: Connection) -> None:
        self.orders, self.process, self.pipe = orders, process, pipe
