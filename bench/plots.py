"""Two plots, as SVG written out: what a delivery costs as rooms grow, and as connections become many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from statistics import median
from typing import Final

from bench.figures import Figures

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 60, 210, 36, 46
COLOURS: Final = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b")
STYLE: Final = "text{font:12px sans-serif;fill:#555}.title{font-size:14px}path{fill:none}.axis{stroke:#999}"


@dataclass
class Plot:
    """Lines of (x, y) by name; x is on a logarithmic scale, y starts at 0."""

    title: str
    across: str
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


def plots(runs: Sequence[Figures]) -> dict[str, str]:
    """SVG by file name, for those there are figures for."""
    members = Plot("CPU seconds per 100,000 deliveries", "members of the room")
    crowds = Plot("CPU seconds per 100,000 deliveries in a room of 100", "connections in all")
    for name, plot in (("members", members), ("crowd", crowds)):
        found: dict[tuple[str, int], list[float]] = {}
        for run in runs:
            if run.workload == name and run.cost is not None:
                server = run.server if run.server != "qiyu" else f"qiyu, {run.wire}"
                found.setdefault((server, run.connections), []).append(run.cost)
        for (server, x), costs in found.items():
            plot.lines.setdefault(server, []).append((x, median(costs)))
    drawn = {"cost-by-members.svg": members, "cost-by-connections.svg": crowds}
    return {name: draw(plot) for name, plot in drawn.items() if plot.lines}


def draw(plot: Plot) -> str:
    """One plot."""
    xs = sorted({x for line in plot.lines.values() for x, _ in line})
    top = max(y for line in plot.lines.values() for _, y in line) * 1.1 or 1
    low, high = math.log(xs[0]), math.log(xs[-1]) if len(xs) > 1 else math.log(xs[0]) + 1

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log(x) - low) / (high - low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"><style>{STYLE}</style>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text class="title" x="{LEFT}" y="20">{escape(plot.title)}</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(plot.across)}</text>',
        f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>',
    ]
    for x in xs:
        left, bottom = at(x, 0)
        parts.append(f'<text x="{left:.0f}" y="{bottom + 18:.0f}" text-anchor="middle">{x:,.0f}</text>')
    for y in _ticks(top):
        left, height = at(xs[0], y)
        parts.append(f'<text x="{left - 8:.0f}" y="{height + 4:.0f}" text-anchor="end">{y:g}</text>')
        parts.append(f'<path stroke="#eee" d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}"/>')
    for index, (name, line) in enumerate(plot.lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        points = [at(x, y) for x, y in sorted(line)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(f'<path d="M{path}" stroke="{colour}" stroke-width="2"/>')
        parts.extend(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points)
        height = TOP + 18 * index + 8
        parts.append(f'<path d="M{WIDTH - RIGHT + 16} {height}h18" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 40}" y="{height + 4}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _ticks(top: float) -> list[float]:
    """Three to six round numbers from 0 on."""
    step = 10 ** math.floor(math.log10(top / 2))
    step = next(step * factor for factor in (1, 2, 5, 10) if top / (step * factor) <= 6)
    return [round(i * step, 10) for i in range(int(top / step) + 1)]
