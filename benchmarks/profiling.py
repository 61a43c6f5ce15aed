"""Where the time of one work goes."""

from __future__ import annotations

import cProfile
import pstats

from .contest import Contestant, Work

_LINES = 45


async def profile(work: Work, contestant: Contestant, operations: int) -> None:
    """Print the functions in which a contestant spends its time, the greatest first.

    The profiler slows calls down more than anything else: it shows where to look, not what is won.
    """
    async with work.around():
        await contestant.prepare(operations)
        await contestant.run(work.step)
        await contestant.prepare(operations)
        with cProfile.Profile() as profiler:
            await contestant.run(operations)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(_LINES)
