"""The breaker before a server that does not answer."""

from hypothesis import given
from hypothesis import strategies as st

from fastrdb.cache.breaker import Breaker, State


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def breaker(clock: Clock) -> tuple[Breaker, list[bool]]:
    """A breaker, and what it tells: whether it is closed."""
    told: list[bool] = []
    return Breaker(failures=3, first_pause_s=1, last_pause_s=4, clock=clock, changed=told.append), told


def test_single_failures_do_not_open_it() -> None:
    """Failures with an answer between them leave it closed."""
    found, told = breaker(Clock())
    for _ in range(5):
        found.failed()
        found.failed()
        assert found.allows()
        found.succeeded()
    assert (found.state, told) == (State.CLOSED, [])


def test_failures_in_a_row_open_it() -> None:
    """After so many failures nobody may ask, until the pause is over."""
    clock = Clock()
    found, told = breaker(clock)
    for _ in range(3):
        found.failed()
    assert not found.allows()
    clock.now += 0.7
    assert not found.allows()
    clock.now += 0.6
    assert found.allows()
    assert (found.state, told) == (State.HALF_OPEN, [False])


def test_one_tries_while_the_others_wait() -> None:
    """Half-open it lets one ask; an answer closes it, and everybody may ask again."""
    clock = Clock()
    found, told = breaker(clock)
    for _ in range(3):
        found.failed()
    clock.now += 2
    assert [found.allows() for _ in range(3)] == [True, False, False]
    found.succeeded()
    assert [found.allows() for _ in range(3)] == [True, True, True]
    assert told == [False, True]


def test_a_trial_that_fails_doubles_the_pause() -> None:
    """Pauses double up to the longest, and begin anew after an answer."""
    clock = Clock()
    found, _ = breaker(clock)
    pauses = []
    for _ in range(3):
        found.failed()
    for _ in range(4):
        begun = clock.now
        while not found.allows():
            clock.now += 0.05
        pauses.append(clock.now - begun)
        found.failed()
    assert [0.7 < pauses[0] < 1.3, 1.5 < pauses[1] < 2.5, 3.1 < pauses[2] < 4.9, 3.1 < pauses[3] < 4.9] == [True] * 4


def test_a_trial_nobody_hears_of_is_given_up() -> None:
    """Where the one who tries is cancelled, somebody else tries later."""
    clock = Clock()
    found, _ = breaker(clock)
    for _ in range(3):
        found.failed()
    clock.now += 2
    assert found.allows()
    clock.now += 3
    assert not found.allows()
    clock.now += 1.1
    assert found.allows()


def test_many_failures_at_once_are_one() -> None:
    """Whoever asked before it opened, and fails after, does not lengthen the pause."""
    clock = Clock()
    found, _ = breaker(clock)
    for _ in range(100):
        found.failed()
    clock.now += 1.3
    assert found.allows()


@given(st.lists(st.sampled_from(["fail", "succeed", "ask", "wait"]), max_size=60))
def test_it_never_stays_shut(steps: list[str]) -> None:
    """Whatever happened: after the longest pause somebody may ask, and an answer lets everybody."""
    clock = Clock()
    found, _ = breaker(clock)
    for step in steps:
        if step == "fail":
            found.failed()
        elif step == "succeed":
            found.succeeded()
        elif step == "ask":
            found.allows()
        else:
            clock.now += 0.5
    clock.now += 5
    assert found.allows()
    found.succeeded()
    assert [found.allows(), found.allows(), found.state] == [True, True, State.CLOSED]


def test_who_knows_better_need_not_wait() -> None:
    """Where there is reason to believe that things have changed, the next one tries at once."""
    clock = Clock()
    found, _ = breaker(clock)
    for _ in range(3):
        found.failed()
    assert not found.allows()
    found.hurry()
    assert [found.allows(), found.allows()] == [True, False]
