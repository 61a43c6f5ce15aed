"""All that the soak runs. Another part is another line here."""

from __future__ import annotations

from functools import partial

from fastrdb import NearTier

from . import reads
from .lost import OUTAGES, lose
from .others import ALLOWED_S, CANCELLATIONS, away, cancel
from .part import Part

PARTS: tuple[Part, ...] = (
    reads.part("killed", "kill -9 of writers", None, 5),
    reads.part("restarted", "Redis restarted empty", reads.restarted, 6),
    reads.part("restored", "Redis restarted with old data", reads.restored, 6),
    reads.part("paused", "Redis paused", reads.hung, 8),
    reads.part("replaced", "Redis failed over to a replica that lags", reads.replaced, 8, proxied=True),
    reads.part("cut", "connections cut in the middle of a reply", reads.cut, 8, proxied=True),
    reads.part("full", "Redis evicting under memory pressure", reads.full, 5),
    reads.part("mixed", "all of these outages in turn", reads.mixed, 2, proxied=True, reads=reads.FEWER),
    reads.part("near", "a near tier", None, 2, reads=reads.FEWER, near=NearTier(max_age_s=reads.MAX_AGE_S)),
    Part(
        "proceed",
        f"lost invalidations, {OUTAGES} outages during writes",
        "0",
        partial(lose, outbox=False, kills=False),
        5,
    ),
    Part(
        "outbox",
        "the same with an outbox, and writers killed in them",
        "0",
        partial(lose, outbox=True, kills=True),
        6,
    ),
    Part("cancelled", f"what {CANCELLATIONS:,} cancelled requests leave behind", "nothing", cancel, 2),
    Part("away", "p99 of a cached read while Redis is away, above that of SQL", f"<= {ALLOWED_S * 1e3:g} ms", away, 3),
)
