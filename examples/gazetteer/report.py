"""The table at the end, and the bar on the way there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .tour import Cost, Line

NOTHING = "–"


@contextmanager
def bar(console: Console, words: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far it is, on a terminal; elsewhere say one line."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    if not console.is_terminal:
        console.print(f"{words} …")
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(words, total=total)
        yield lambda done: progress.advance(task, done)


def show(console: Console, lines: Sequence[Line], where: str) -> None:
    """Print what each step cost, cold and warm, and whether every answer was the database's."""
    table = Table(title=f"The gazetteer on {where}", box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    table.add_column("step", no_wrap=True)
    for name in ("calls", "SQL cold", "SQL warm", "ms cold", "ms warm", "equal"):
        table.add_column(name, justify="right")
    for line in lines:
        cold, warm = line.cold, line.warm
        equal = "yes" if not wrong_answers([line]) else f"{wrong_answers([line])} differ"
        numbers = (_statements(cold), _statements(warm), _milliseconds(cold), _milliseconds(warm))
        table.add_row(line.title, f"{cold.calls:,}", *numbers, equal)
    console.print(table)
    console.print(verdict(lines))


def verdict(lines: Sequence[Line]) -> str:
    """Say how many answers there were, and how many were not the database's."""
    answers = sum(cost.calls for line in lines for cost in line.costs)
    wrong = wrong_answers(lines)
    if wrong:
        return f"{wrong:,} of {answers:,} answers differ from the database's."
    return f"All {answers:,} answers equal the database's."


def wrong_answers(lines: Sequence[Line]) -> int:
    """Count the answers that were not the database's."""
    return sum(cost.wrong for line in lines for cost in line.costs)


def _statements(cost: Cost | None) -> str:
    return NOTHING if cost is None else f"{cost.statements:,}"


def _milliseconds(cost: Cost | None) -> str:
    return NOTHING if cost is None else f"{cost.seconds * 1000:,.0f}"
