"""All that the soak runs. Another part is another line here."""

from __future__ import annotations

from functools import partial

from . import reads
from .lost import OUTAGES, lose
from .others import ALLOWED_S, CANCELLATIONS, away, cancel
from .part import Part

PARTS: tuple[Part, ...] = (
    reads.part("killed", "kill -9 of writers", None),
    reads.part("restarted", "Redis restarted empty", reads.restarted),
    reads.part("restored", "Redis restarted with old data", reads.restored),
    reads.part("paused", "Redis paused", reads.hung),
    reads.part("replaced", "Redis failed over to a replica that lags", reads.replaced, proxied=True),
    reads.part("cut", "connections cut in the middle of a reply", reads.cut, proxied=True),
    reads.part("full", "Redis evicting under memory pressure", reads.full),
    reads.part("mixed", "all of these outages in turn", reads.mixed, proxied=True),
    Part(
        "proceed", f"lost invalidations, {OUTAGES} outages during writes", "0", partial(lose, outbox=False, kills=False)
    ),
    Part("outbox", "the same with an outbox, and writers killed in them", "0", partial(lose, outbox=True, kills=True)),
    Part("cancelled", f"what {CANCELLATIONS:,} cancelled requests leave behind", "nothing", cancel),
    Part(
        "away", "p99 of a cached read while Redis is away, above that of SQL", f"<= {ALLOWED_S * 1e3:g} ms", away, 0.3
    ),
)
