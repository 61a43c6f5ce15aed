"""What a run of the harness is told, and what it tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fastrdb.cache.protocol import ALL_PARTS, Parts

from .builtin import Builtin
from .outages import Outage
from .subject import Subject

WAYS = {
    "alone": 4.0,  # the crud opens the session, and commits
    "overtaken": 1.0,  # the same, and another write of the row comes between its COMMIT and its release
    "in_session": 2.0,  # it commits the caller's session, in which something was read before
    "joined": 3.0,  # two writes in the caller's transaction, which is rolled back at times
    "savepoint": 1.0,  # two writes, one of them in a savepoint, which is rolled back at times
    "committed_by_caller": 1.0,  # commit=False
    "by_itself": 1.0,  # AUTOCOMMIT
    "many": 0.5,  # create_multi
    "upserted": 0.6,  # upsert and upsert_multi
    "patched": 0.4,  # patch
    "several": 0.5,  # update_multi and delete_multi
    "by_condition": 0.4,  # update_where and delete_where
    "plain": 0.6,  # an attribute of an instance, in a watched session
    "invalidated": 0.2,  # invalidate and clear
    "bound": 0.2,  # in a session that is bound to a connection
}
POINTS = ("statement", "reply", "fill", "release", "torn")


@dataclass(frozen=True, slots=True)
class Weather:
    """What goes wrong, and how often. Shares are from 0 to 1, times in seconds.

    Storms and calms take turns: in a storm everybody writes, a few rows at a time, and cells are deleted; in a calm
    there are only reads, and what the storm has left in the cache shows, at little cost.

    Attributes:
        storm_s, calm_s: Length of a storm, and of the calm after it.
        points: Where messages can be late; each storm is about some of them. ``"statement"``: a statement's result, so
            that much may happen between SELECT and fill, or before COMMIT; ``"reply"``: what Redis answers, so between
            holds and COMMIT, or claim and SELECT; ``"fill"``; ``"release"``: so after COMMIT; ``"torn"``: the second
            half of a pipeline (Redis promises no more than that each command is atomic).
        late: Share of the late among a reader's messages at these points.
        late_writes: The same of a writer.
        late_s: How late, in the mean; five times that at most.
        deadly: Share of these messages of a writer at which it kills itself: between its holds, before COMMIT, after
            COMMIT, between its releases.
        kill_every_s: Mean time between kills of some process, from outside; 0 for never.
        cut_every_s: Mean time between cuts of a connection of each writer process, by PostgreSQL itself; 0 for never.
        evict_per_s: Cells, of those that were ever read, that each reader deletes in a storm; holds are left.
        evict_tokens: Share of these that are tokens.
        evict_lists: Share of these that are the table's token ``all``, which lists the templates in use.
        cancelled: Share of the reads that are cancelled under way.
    """

    storm_s: float = 0.5
    calm_s: float = 0.25
    points: tuple[str, ...] = POINTS
    late: float = 0.05
    late_writes: float = 0.4
    late_s: float = 0.02
    deadly: float = 0.003
    kill_every_s: float = 5.0
    cut_every_s: float = 2.0
    evict_per_s: float = 20.0
    evict_tokens: float = 0.2
    evict_lists: float = 0.3
    cancelled: float = 0.002


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run: against which servers, with whose crud, for how long, in which weather.

    Attributes:
        postgres: SQLAlchemy URL of a database, ``postgresql+asyncpg://…``, where schemas and triggers may be made.
        redis: URL of a Redis or Valkey server or a cluster, as ``Cache.from_url`` takes it. Nothing but the run's own
            keys is touched there.
        subjects: What is read and written, each a module's function without arguments that builds a ``Subject``; the
            processes get them in turn, so that two of them are the old and the new code of a deploy. By default, a
            table of the harness's own.
        reads: Number of judged reads after which the run ends.
        limit_s: The run also ends after so many seconds.
        stop_at_first: It also ends with the first stale read.
        seed: Of everything random in the processes; they still meet each other as the machine has it.
        readers, writers: Number of processes.
        batch: Reads that start at once, between two looks at the truth; a reader process has four such batches.
        ways: What writers do, and how often, by the names of ``WAYS``; half of the storms are about few of them.
        pause_s: Mean pause, in a storm, between two writes of one of a writer process's two tasks.
        hold_s: Life of a hold. A killed writer makes readers bypass for so long; a COMMIT must never take longer.
        parts: Parts of the protocol. One switched off must make the harness find stale reads.
        weather: What goes wrong.
        outages: What goes wrong with Redis, in turn, while all others go on. Stale reads inside the windows of
            docs/coherence.md are then told apart, as ``bounded``.
        outage_every_s: Mean time from the end of one outage to the next.
        outages_wanted: Number of outages that must be over before the run ends, as long as *limit_s* allows.
        timeout_s: How long processes wait for Redis. Without outages a busy machine must not pass for one.
        outbox: Writes leave in the database what they could not tell Redis.
    """

    postgres: str
    redis: str
    subjects: tuple[Callable[[], Subject], ...] = (Builtin("old"), Builtin("new"))
    reads: int = 200_000
    limit_s: float = 3_600.0
    stop_at_first: bool = False
    seed: int = 0
    readers: int = 3
    writers: int = 3
    batch: int = 16
    ways: Mapping[str, float] = field(default_factory=WAYS.copy)
    pause_s: float = 0.02
    hold_s: float = 0.7
    parts: Parts = ALL_PARTS
    weather: Weather = field(default_factory=Weather)
    outages: Sequence[Outage] = ()
    outage_every_s: float = 2.0
    outages_wanted: int = 0
    timeout_s: float = 10.0
    outbox: bool = False


@dataclass(frozen=True, slots=True)
class Stale:
    """One answer that was older than a COMMIT which its read began after, or that was never committed.

    Attributes:
        read: What was asked for.
        answer: What was answered.
        why: What it contradicts.
        truth: The rows concerned, as they were before and after the read.
        worker: Name of the reading process.
        after_s: Seconds since the run began.
    """

    read: str
    answer: str
    why: str
    truth: str
    worker: str
    after_s: float

    def __str__(self) -> str:
        return (
            f"{self.read} -> {self.answer}\n"
            f"  {self.why} ({self.worker}, {self.after_s:.1f} s after the start)\n  {self.truth}"
        )


@dataclass(slots=True)
class Report:
    """What came out.

    Attributes:
        seed: That of the scenario.
        reads: Judged reads.
        stale: How many of them were stale, and not bounded.
        bounded: How many were older than a COMMIT, inside a window that docs/coherence.md names.
        longest_lag_s: The greatest age of what these lacked: from the write, before its COMMIT, to the read.
        windows: Writes whose windows showed.
        examples: The first of these.
        writes: Transactions that writers saw committed, by kind; of killed ones, those they reported before.
        kills: Processes that were killed, from outside or by themselves, and started again.
        outages: How many there were, by name.
        cache: What ``Cache.stats`` of the readers counted: a run in which nothing is ever a hit shows nothing.
        slowest_hold_s: Longest time from a hold to its release that a writer survived.
        seconds: Time from the first read to the end.
    """

    seed: int
    reads: int = 0
    stale: int = 0
    bounded: int = 0
    longest_lag_s: float = 0.0
    windows: set[str] = field(default_factory=set)
    outages: Counter[str] = field(default_factory=Counter)
    examples: list[Stale] = field(default_factory=list)
    writes: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    cache: Counter[str] = field(default_factory=Counter)
    slowest_hold_s: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        rate = self.reads / self.seconds if self.seconds else 0.0
        hits = 100 * self.cache["hits"] / max(1, self.reads)
        summary = (
            f"seed {self.seed}: {self.reads} reads in {self.seconds:.0f} s ({rate:.0f}/s, {hits:.0f} % hits), "
            f"{self.writes.total()} writes, {self.kills} kills{self._outages()}: {self.stale} stale"
        )
        return "\n".join([summary, *map(str, self.examples)])

    def _outages(self) -> str:
        if not self.outages:
            return ""
        told = ", ".join(f"{name} {times} x" for name, times in self.outages.items())
        return (
            f", {told}; {self.bounded} reads inside the windows of {len(self.windows)} writes, "
            f"{self.longest_lag_s:.2f} s old at most"
        )
