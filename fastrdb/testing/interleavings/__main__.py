"""Explore every table, and say whether each row came out as it should.

``python -m fastrdb.testing.interleavings`` takes two minutes; ``-v`` also prints each counterexample, ``--quick``
explores the sizes that the tests do, ``-k TEXT`` only the rows whose title has the text.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from fastrdb.cache.protocol import ALL_PARTS, Parts

from .configurations import Configuration
from .exploring import Result, explore
from .tables import BREAKS, HOLDS, LIMITS, SIZES


class Row(NamedTuple):
    """A line of a table."""

    wanted: str
    title: str
    configuration: Configuration
    parts: Parts


def main() -> int:
    """Print the tables. Gives 1 if a row came out otherwise than it should."""
    options = _options()
    wrong = 0
    for row in _rows(options.quick):
        if options.k not in row.title:
            continue
        began = time.process_time()
        result = explore(row.configuration, row.parts)
        got = "breaks" if result.broken else "holds"
        unexpected = got != row.wanted
        wrong += unexpected
        print(
            f"{got:6} {result.states:9,} situations {time.process_time() - began:6.2f} s  {row.title}",
            "  <-- UNEXPECTED" if unexpected else "",
            flush=True,
        )
        if result.broken and (options.verbose or unexpected):
            _tell(result)
    return int(bool(wrong))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m fastrdb.testing.interleavings", description=__doc__)
    parser.add_argument("-v", "--verbose", action="store_true", help="print each counterexample")
    parser.add_argument("--quick", action="store_true", help="the sizes that the tests explore")
    parser.add_argument("-k", default="", metavar="TEXT", help="only rows whose title has this text")
    return parser.parse_args()


def _rows(quick: bool) -> Iterator[Row]:
    sizes = SIZES if quick else (*SIZES[:1], (2, 2))
    for title, configuration in HOLDS.items():
        for readers, reads in sizes:
            sized = replace(configuration, readers=readers, reads=reads)
            yield Row("holds", f"{title} ({readers} readers, {reads} reads each)", sized, ALL_PARTS)
    for title, break_ in BREAKS.items():
        yield Row("breaks", title, break_.configuration, break_.parts)
        yield Row("holds", f"with it: {title}", break_.mended, ALL_PARTS)
    for title, configuration in LIMITS.items():
        yield Row("breaks", f"a limit: {title}", configuration, ALL_PARTS)
        yield Row("holds", f"after the release: {title}", replace(configuration, fresh="return"), ALL_PARTS)


def _tell(result: Result) -> None:
    for line in (*result.path, result.broken):
        print(f"        {line}")


if __name__ == "__main__":
    sys.exit(main())
