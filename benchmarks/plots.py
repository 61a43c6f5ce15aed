"""Plots as SVG, written by hand: bars, and lines over a logarithmic axis. Readable on a light and a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10
from typing import NamedTuple

_WIDTH, _ROW, _LEFT, _TOP = 720, 26, 220, 36
_INK, _OURS, _OTHERS = "#888888", "#5c6bc0", "#a0a8b8"
_COLOURS = ("#5c6bc0", "#e07a3f", "#3f9e6b", "#b0447a")
_PLOT = 240  # height of a plot of lines


class Line(NamedTuple):
    """One line of a plot: points by growing x, which is at least 1."""

    title: str
    points: Sequence[tuple[float, float]]


def bars(title: str, rows: Sequence[tuple[str, float]]) -> str:
    """Draw a bar for each named value, fastrdb's in another colour."""
    most = max((value for _, value in rows), default=0) or 1
    room = _WIDTH - _LEFT - 90
    drawn = []
    for at, (name, value) in enumerate(rows):
        y, colour = _TOP + at * _ROW, _OURS if name.partition(",")[0] == "fastrdb" else _OTHERS
        drawn.append(_text(_LEFT - 8, y + 15, name, anchor="end"))
        drawn.append(
            f'<rect x="{_LEFT}" y="{y + 2}" width="{max(1, room * value / most):.1f}" height="18" fill="{colour}"/>'
        )
        drawn.append(_text(_LEFT + room * value / most + 6, y + 15, f"{value:,.2f}" if value % 1 else f"{value:,.0f}"))
    return _svg(title, _TOP + len(rows) * _ROW + 8, drawn)


def lines(title: str, drawn: Sequence[Line]) -> str:
    """Draw lines, x on a logarithmic axis, y from 0 on."""
    xs = sorted({x for line in drawn for x, _ in line.points})
    most = max((y for line in drawn for _, y in line.points), default=1) * 1.1
    low, high = log10(xs[0]), max(log10(xs[-1]), log10(xs[0]) + 1)
    left, room, bottom = 50, _WIDTH - 80, _TOP + _PLOT

    def place(x: float, y: float) -> tuple[float, float]:
        return left + room * (log10(x) - low) / (high - low), bottom - _PLOT * y / most

    parts = [f'<path d="M{left} {_TOP}V{bottom}H{left + room}" fill="none" stroke="{_INK}"/>']
    parts += [_text(place(x, 0)[0], bottom + 16, f"{x:,.0f}", anchor="middle") for x in xs]
    parts += [_text(left - 6, place(1, y)[1] + 4, f"{y:.2f}", anchor="end") for y in (0, most / 2, most)]
    for at, line in enumerate(drawn):
        colour, points = _COLOURS[at % len(_COLOURS)], [place(x, y) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        parts.append(f'<rect x="{left + at * 220}" y="{bottom + 30}" width="12" height="12" fill="{colour}"/>')
        parts.append(_text(left + 18 + at * 220, bottom + 41, line.title))
    return _svg(title, bottom + 52, parts)


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_INK}">{escape(text)}</text>'


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" '
        f'font-family="sans-serif" font-size="12">'
    )
    return "\n".join([head, f"<title>{escape(title)}</title>", _text(8, 18, title), *parts, "</svg>", ""])
