"""The page of the docs with plots, drawn from the figures of the last runs: ``python -m benchmarks.pages``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .plots import Line, bars, lines

_HERE = Path(__file__).parent
PEERS_DATA = _HERE / "figures" / "peers.json"
GROWTH_DATA = _HERE / "figures" / "growth.json"
DOCS = _HERE.parent / "docs"
PAGE = DOCS / "benchmarks.md"
BEGIN, END = "<!-- {}: written by the benchmark -->", "<!-- end of {} -->"


def write_page(page: Path = PAGE) -> None:
    """Draw the plots beside the page, and put them and the tables between its marks."""
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    for name, path, draw in (("peers", PEERS_DATA, _peers), ("growth", GROWTH_DATA, _growth)):
        if path.exists():
            data = json.loads(path.read_text())
            plots = draw(data)
            for plot, svg in plots.items():
                (folder / f"{plot}.svg").write_text(svg)
            images = [f"![{_alternative(plot)}]({folder.name}/{plot}.svg)" for plot in plots]
            _replace(page, name, "\n\n".join([data["conditions"], *images, data["tables"]]))


def _alternative(plot: str) -> str:
    return plot.replace("-", " ").capitalize()


def _replace(page: Path, name: str, text: str) -> None:
    begin, end = BEGIN.format(name), END.format(name)
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def _peers(data: dict[str, Any]) -> dict[str, str]:
    """Draw one plot of bars per work, and one of stale reads."""
    plots = {}
    for work in dict.fromkeys(figure["work"] for figure in data["figures"]):
        served = work.startswith("requests")
        note = "more is better" if served else "time, less is better"
        rows = [(figure["peer"], figure["ratio"]) for figure in data["figures"] if figure["work"] == work]
        plots[_name(work)] = bars(f"{work}: ratio to hand-written ({note})", rows)
    for killing, title in ((False, "stale reads per million"), (True, "stale reads per million, writers killed")):
        if rows := [(one["peer"], one["per_million"]) for one in data["stale"] if one["killing"] is killing]:
            plots[_name(title)] = bars(f"{title} (0 is right)", rows)
    return plots


def _growth(data: dict[str, Any]) -> dict[str, str]:
    """Draw one plot of lines per axis."""
    plots = {}
    for axis in dict.fromkeys(figure["axis"] for figure in data["figures"]):
        own = [figure for figure in data["figures"] if figure["axis"] == axis]
        drawn = [
            Line(work, [(figure["size"], figure["ratio"]) for figure in own if figure["work"] == work])
            for work in dict.fromkeys(figure["work"] for figure in own)
        ]
        plots[_name(f"growth by {axis}")] = lines(f"fastrdb: time as a ratio to hand-written, by {axis}", drawn)
    return plots


def _name(title: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower()).replace("--", "-").strip("-")


if __name__ == "__main__":
    write_page()
