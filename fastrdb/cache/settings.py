"""What a cache is told, checked where it is given: a wrong setting must not look like an outage later. No I/O."""

from __future__ import annotations

from math import isfinite
from typing import Any, Literal, TypeAlias

from ..errors import ConfigurationError
from .near import NearTier
from .outbox import Outbox

OnUnreachable: TypeAlias = Literal["proceed", "refuse"]


def check_settings(*, prefix: Any, on_unreachable: Any, outbox: Any, aged_bytes: Any, near: Any) -> None:
    """Check what every cache is told.

    Raises:
        ConfigurationError: Names the setting, and what it takes.
    """
    if not isinstance(prefix, str):
        raise ConfigurationError(f"prefix: {prefix!r}; it is text")
    if any(letter in "%*?[]{}" or letter.isspace() for letter in prefix):
        raise ConfigurationError(f"prefix {prefix!r}: leave out white space and any of % * ? [ ] {{ }}")
    if on_unreachable not in ("proceed", "refuse"):
        raise ConfigurationError(f"on_unreachable: {on_unreachable!r}; it is 'proceed' or 'refuse'")
    if outbox is not None and not isinstance(outbox, Outbox):
        raise ConfigurationError(f"outbox: {type(outbox).__name__}; pass a fastrdb.Outbox")
    if near is not None and not isinstance(near, NearTier):
        raise ConfigurationError(f"near: {near!r}; pass a fastrdb.NearTier")
    check_count("aged_bytes", aged_bytes, "; without max_stale it is unused")


def check_near(near: NearTier | None, *, clustered: bool) -> None:
    """Refuse a near tier where it cannot work.

    Raises:
        ConfigurationError: There is one, for a cluster.
    """
    if near is not None and clustered:
        raise ConfigurationError("near: it does not follow the nodes of a cluster; leave it out, or use one server")


def check_times(timeout_s: Any, hold_s: Any) -> None:
    """Check times in seconds.

    Raises:
        ConfigurationError: One is no number, or not positive.
    """
    for name, given in {"timeout_s": timeout_s, "hold_s": hold_s}.items():
        if isinstance(given, bool) or not isinstance(given, (int, float)) or not (given > 0 and isfinite(given)):
            raise ConfigurationError(f"{name}: {given!r}; it is seconds, as a number greater than 0")


def check_count(name: str, given: Any, besides: str = "") -> None:
    """Check a number of things.

    Raises:
        ConfigurationError: It is no integer, or below 1.
    """
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise ConfigurationError(f"{name} must be 1 or more, not {given!r}{besides}")
