"""The configurations that are explored, by what must come out.

``HOLDS`` keep the promise. ``BREAKS`` lose it, each because one part of the protocol is switched off, or one rule of
its readers or writers is not followed. ``LIMITS`` lose it with everything on, until the write has returned: the windows
that the docs describe.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from fastrdb.cache.protocol import ALL_PARTS, MAX_LISTED, Parts

from .configurations import ALL, ANY, DIRECTORY, ENTRY, TEMPLATE, Configuration, Plan

SIZES = ((1, 3), (2, 1))  # readers, and reads of each: small enough for every run of the tests

PRECISE = Plan(holds=(ENTRY,), through=True)
WIDE = Plan(holds=(DIRECTORY,))
BOTH = Plan(holds=(ENTRY, DIRECTORY), through=True)
LACKING = Plan(table=True)  # its code lacks the template
KNOWING = Plan(holds=(ENTRY,), table=True, lists=True, through=True)
SWEEPING = Plan(holds=(ALL,), table=True)  # too many rows to name
RENEWING = replace(PRECISE, renews=True)

# `all` is there from the start, with other templates at most.
LISTED = Configuration((LACKING, LACKING), (ALL,), cells=(None, None, None, b"n0"), evictable=(ALL,))
CONFIRMED = b"n0\n%s\t" % TEMPLATE
FULL = b"n0" + b"".join(b"\nT%d\t" % i for i in range(MAX_LISTED))
NULL = Configuration((Plan(table=True, names=None),), (ALL, ANY), creates=True, cells=LISTED.cells)
ROW = Configuration((PRECISE, WIDE))
ROW_ONLY = Configuration((PRECISE, PRECISE))
PAGE = Configuration((WIDE, WIDE))

UNHEARD = replace(ROW_ONLY, writers=(replace(PRECISE, outcome_lost=True), PRECISE))
RENEWED = replace(ROW_ONLY, writers=(RENEWING, PRECISE), outlived=True, fresh="return")
LOST = replace(LISTED, evictions=1, evictable=(ANY,), loses_holds=True, fresh="return")
OUTLIVED = replace(LISTED, outlived=True, fresh="return")
LOST_RENEWING = replace(LACKING, renews=True)
LOST_RENEWED = replace(OUTLIVED, writers=(LOST_RENEWING,))
SWEPT = replace(LISTED, writers=(SWEEPING, LACKING), cells=(None, None, None, CONFIRMED))


class Break(NamedTuple):
    """A configuration that breaks.

    Attributes:
        configuration: Who takes part.
        parts: The protocol, without the part.
        mended: The configuration that holds with all parts.
    """

    configuration: Configuration
    parts: Parts
    mended: Configuration

    @classmethod
    def part(cls, configuration: Configuration, parts: Parts) -> Break:
        """Give what breaks without a part of the protocol."""
        return cls(configuration, parts, configuration)

    @classmethod
    def rule(cls, mended: Configuration, **broken: Any) -> Break:
        """Give what breaks because a rule of the readers or writers is not followed, the fields that say so given."""
        return cls(replace(mended, **broken), ALL_PARTS, mended)


HOLDS: dict[str, Configuration] = {
    # one row in one directory
    "a row and its list: one precise writer, one directory-wide": ROW,
    "the same, and one of them is killed at any point": replace(ROW, crashes=1),
    "a list page: both writers hold the directory": PAGE,
    "a row: both writers hold its entry; one is killed": replace(ROW_ONLY, crashes=1),
    "writers that hold both; one is killed": Configuration((BOTH, BOTH), crashes=1),
    "entry and token read apart, as on a cluster": replace(ROW, split=True),
    "one eviction: never older than the last returned write": replace(
        ROW, evictions=1, loses_holds=True, fresh="return"
    ),
    "one eviction, lists": replace(PAGE, evictions=1, loses_holds=True, fresh="return"),
    # the lists of templates
    "listed and confirmed; one writer killed": replace(LISTED, crashes=1),
    "`all` is evicted once": replace(LISTED, evictions=1),
    "evicted once, one writer killed": replace(LISTED, writers=(LACKING,), evictions=1, crashes=1),
    "a writer that knows the template writes through, another lacks it": replace(
        LISTED, writers=(KNOWING, LACKING), crashes=1
    ),
    "the same, and `all` is evicted once": replace(LISTED, writers=(KNOWING, LACKING), evictions=1),
    "a listed directory": replace(
        LISTED, writers=(replace(LACKING, names=DIRECTORY),) * 2, scopes=(ALL, DIRECTORY), crashes=1
    ),
    "a listed template that a writer cannot format": replace(
        LISTED, writers=(replace(LACKING, formats=False), LACKING), crashes=1
    ),
    "a writer of many rows holds `all`": replace(LISTED, writers=(SWEEPING, LACKING), crashes=1),
    "the same, under a template that was confirmed long ago": SWEPT,
    "a list of templates that is full starts again": replace(LISTED, cells=(None, None, None, FULL)),
    # templates that are first listed while a hold on `any` is lost: never older than the last returned write
    "a template's first listing while the hold on `any` is evicted": LOST,
    "the same, and another writer knows the template and writes through": replace(LOST, writers=(KNOWING, LACKING)),
    "the same, and another writer holds `all`": replace(LOST, writers=(SWEEPING, LACKING)),
    "a template's first listing while COMMIT outlives the hold on `any`": OUTLIVED,
    "the same, and the hold is renewed": LOST_RENEWED,
    # writers that no row lock serialises
    "rows of one list that no lock serialises; one is killed": replace(PAGE, locked=False, crashes=1),
    "upserts of one row that no lock serialises; one is killed": replace(ROW_ONLY, locked=False, crashes=1),
    "upserts that hold both": Configuration((BOTH, BOTH), locked=False),
    "writers that lack the template, and no lock": replace(LISTED, locked=False, crashes=1),
    "one writes through, the other lacks the template, no lock": replace(
        LISTED, writers=(KNOWING, LACKING), locked=False
    ),
    # COMMITs that hang, fail, or are never heard of
    "COMMIT hangs, and its holds are renewed": replace(ROW_ONLY, writers=(RENEWING, PRECISE), crashes=1),
    "COMMIT outlives its hold: never older than the last returned write": replace(
        ROW_ONLY, outlived=True, fresh="return"
    ),
    "COMMIT outlives its hold, which is renewed": RENEWED,
    "COMMIT outlives its hold, lists": replace(PAGE, outlived=True, fresh="return"),
    "a COMMIT of which nobody hears": UNHEARD,
    "a COMMIT of which nobody hears, lists": replace(PAGE, writers=(replace(WIDE, outcome_lost=True), WIDE)),
    "a COMMIT that is refused": replace(ROW_ONLY, writers=(replace(BOTH, may_fail=True), PRECISE)),
    # rows that are not there
    "a null, then the row is created": replace(ROW_ONLY, writers=(PRECISE,), creates=True),
    "a null under another spelling, then the row is created": replace(NULL, crashes=1),
    # readers
    "readers that stamp with the tokens they looked at": replace(ROW, crashes=1, remembers=True),
    "the same, and any token is evicted once": replace(
        PAGE, evictions=1, loses_holds=True, fresh="return", remembers=True
    ),
    "the same, under a template that was confirmed long ago; `all` is evicted once": replace(
        SWEPT, evictions=1, remembers=True
    ),
    "the same, and the hold on `any` is evicted": replace(LOST, remembers=True),
    "readers that are cancelled, and claims that expire": Configuration(
        (PRECISE,), readers=2, reads=2, cancels=True, evictions=1
    ),
}

BREAKS: dict[str, Break] = {
    "no holds: a writer killed after COMMIT leaves a stale list": Break.part(
        Configuration((WIDE,), crashes=1), Parts(holds=False)
    ),
    "no claims: a slow reader fills an old row": Break.part(Configuration((PRECISE,)), Parts(claims=False)),
    "write-through although the hold was shared": Break.part(ROW_ONLY, Parts(sole_holder_installs=False)),
    "write-through stamped with a token read after COMMIT": Break.part(ROW, Parts(stamp_before_commit=False)),
    "no token taken for a valid one": Break.part(Configuration((WIDE,)), Parts(tokens_minted=False)),
    "a fill from a snapshot that is older than its claim": Break.part(
        Configuration((PRECISE,)), Parts(fresh_snapshot=False)
    ),
    "no lists: a template that the writer's code lacks": Break.part(LISTED, Parts(lists=False)),
    "`all` read before `any` is held": Break.part(LISTED, Parts(hold_first=False)),
    "confirmed without waiting for those who hold `any`": Break.part(LISTED, Parts(waits=False)),
    "pending templates left out by the writer": Break.part(LISTED, Parts(pending_counts=False)),
    "written through under a template that nobody listed": Break.part(
        replace(LISTED, writers=(KNOWING, LACKING)), Parts(through_listed=False)
    ),
    "confirmed by an `all` that is gone": Break.rule(SWEPT, rechecks=False),
    "a hold that was lost and renewed counts as never shared": Break.rule(
        RENEWED, writers=(replace(RENEWING, renews_as_shared=False), PRECISE)
    ),
    "released as if `any` had been held all the time": Break.rule(
        LOST, writers=(replace(LACKING, releases_table=False), LACKING)
    ),
    "renewed as if `any` had been held all the time": Break.rule(
        LOST_RENEWED, writers=(replace(LOST_RENEWING, renews_table=False),)
    ),
    "released after a COMMIT of which nobody heard": Break.rule(
        UNHEARD, writers=(replace(PRECISE, outcome_lost=True, trusts_lost=True), PRECISE)
    ),
    "a null that does not depend on `any`": Break.rule(NULL, scopes=(ALL,)),
}

LIMITS: dict[str, Configuration] = {
    "a hold is evicted: the old row, until the release": replace(PAGE, writers=(WIDE,), evictions=1, loses_holds=True),
    "COMMIT outlives its hold: the old row, until the release": replace(PAGE, writers=(WIDE,), outlived=True),
}
