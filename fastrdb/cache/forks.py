"""What starts anew in a forked child, where another thread of the parent may have had its locks."""

from __future__ import annotations

import os
import weakref
from functools import partial
from typing import Protocol


class Forked(Protocol):
    """Something with locks."""

    def after_fork(self) -> None:
        """Start empty, with locks of its own. Called in the child, before anything else runs there."""
        ...


def starts_anew(thing: Forked) -> None:
    """See to it that something starts anew in each child, as long as it lives."""
    os.register_at_fork(after_in_child=partial(_in_child, weakref.ref(thing)))


def _in_child(of: weakref.ref[Forked]) -> None:
    thing = of()
    if thing is not None:
        thing.after_fork()
