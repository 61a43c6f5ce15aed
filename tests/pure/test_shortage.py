"""When it is told that Redis is out of memory, and that it is not any more."""

from fastrdb.cache.shortage import QUIET_S, Shortage


class Clock:
    """A clock that stands still until it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def shortage() -> tuple[Shortage, Clock, list[bool]]:
    """One, its clock, and what it tells: whether it begins."""
    clock, told = Clock(), list[bool]()
    return Shortage(clock=clock, changed=told.append), clock, told


def test_each_shortage_is_told_twice() -> None:
    """It begins with the first refusal, ends with what is stored later, and may begin again."""
    found, clock, told = shortage()
    for _ in range(2):
        for _ in range(3):
            found.refused()
        clock.now += QUIET_S
        for _ in range(3):
            found.stored()
    assert told == [True, False, True, False]


def test_a_server_at_its_limit_is_told_once() -> None:
    """What is stored while others are refused ends nothing, however long that goes on."""
    found, clock, told = shortage()
    for _ in range(50):
        found.refused()
        clock.now += QUIET_S / 2
        found.stored()
    assert told == [True]


def test_nothing_is_told_without_a_refusal() -> None:
    """As long as all is stored there is nothing to say."""
    found, clock, told = shortage()
    found.stored()
    clock.now += QUIET_S
    found.stored()
    assert told == []
