"""Every interleaving of a few readers and writers, on the commands that the cache really sends.

``python -m fastrdb.testing.interleavings -v`` explores all tables and prints what breaks when a part is missing.
"""

from .configurations import Configuration, Plan
from .exploring import Result, explore
from .tables import BREAKS, HOLDS, LIMITS

__all__ = ["BREAKS", "HOLDS", "LIMITS", "Configuration", "Plan", "Result", "explore"]
