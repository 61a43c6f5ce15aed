"""Every interleaving of a few readers and writers, on the commands that the cache really sends.

``python -m fastrdb.testing.interleavings -v`` explores all tables and prints what breaks when a part is missing.
"""

from .configurations import Configuration, Plan
from .exploring import Result, explore
from .replaying import Replayed, StoreDiffers, Walked, replay, walk
from .tables import BREAKS, HOLDS, LIMITS, Break
from .world import StaleRead

__all__ = [
    "BREAKS",
    "HOLDS",
    "LIMITS",
    "Break",
    "Configuration",
    "Plan",
    "Replayed",
    "Result",
    "StaleRead",
    "StoreDiffers",
    "Walked",
    "explore",
    "replay",
    "walk",
]
