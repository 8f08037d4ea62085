"""Tables and plots of what a run found: medians over its rounds, and ratios between servers of the same round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final, TypeAlias

from bench.figures import SATURATED, Figures
from bench.plots import plots
from bench.run import Results
from bench.servers import FLOOR_COALESCE, FLOOR_SEND

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
QIYU: Final = "qiyu"

Metric: TypeAlias = Callable[[Figures], float | None]
Runs: TypeAlias = list[Figures]


@dataclass(frozen=True)
class Column:
    """One figure: its heading (`{unit}` is what the workload counts), how to get it, and how to write it.

    `compared`: whether it is shown as a ratio as well.
    """

    heading: str
    get: Metric
    text: str
    compared: bool = False


def _latency(percentile: str) -> Metric:
    return lambda run: run.latency_ms.get(percentile)


ALL_AT_ONCE: Final = {"logins", "catch-up"}
"""They have so much to do, not so much time."""
COLUMNS: Final = (
    Column("{unit}/s", lambda run: run.rate, "{:,.0f}", compared=True),
    Column("CPU s per 100,000", lambda run: run.cost, "{:.3f}", compared=True),
    Column("s in all", lambda run: run.seconds if run.workload in ALL_AT_ONCE else None, "{:.2f}"),
    Column("bytes each", lambda run: run.bytes_each, "{:,.0f}", compared=True),
    Column("p50 ms", _latency("p50"), "{:.2f}"),
    Column("p99 ms", _latency("p99"), "{:.2f}"),
    Column("p99.9 ms", _latency("p99.9"), "{:.2f}"),
    Column("joined by the generator", lambda run: run.own_coalescing, "{:.0%}"),
    Column("generator", lambda run: run.generator_share if run.done else None, "{:.0%}"),
)
# At a given rate, the rate is no finding.
OF_RATE: Final = tuple(
    replace(column, compared=column.heading in {"CPU s per 100,000", "p50 ms", "p99 ms"}) for column in COLUMNS
)


def write(results: Results, folder: Path, page: Path | None = None) -> None:
    """The report as a page in `folder`, or between the marks of `page`, with plots in a folder beside it."""
    pictures = page.with_suffix("") if page is not None else folder
    pictures.mkdir(parents=True, exist_ok=True)
    drawn = plots(results.figures)
    for name, svg in drawn.items():
        (pictures / name).write_text(svg)
    prefix = f"{pictures.name}/" if page is not None else ""
    text = render(results, [f"{prefix}{name}" for name in drawn])
    if page is None:
        (folder / "report.md").write_text(text)
        print(text)
        return
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def render(results: Results, pictures: Iterable[str] = ()) -> str:
    """Markdown."""
    about = " · ".join(f"{name}: {value}" for name, value in results.about.items())
    workloads: dict[str, Runs] = {}
    for run in results.figures:
        workloads.setdefault(run.workload, []).append(run)
    names = " · ".join(dict.fromkeys(name for runs in workloads.values() for name in _yardsticks(runs)))
    legend = f"A column with ÷ has the ratios to these, each of the same round: {names}." if names else ""
    parts = [about, legend, *(f"### {name}\n\n{_table(runs)}" for name, runs in workloads.items())]
    parts.extend(f"![{Path(picture).stem}]({picture})" for picture in pictures)
    parts.append(_verdict(results))
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(runs: Runs) -> str:
    known = OF_RATE if runs[0].workload == "rate" else COLUMNS
    columns = [column for column in known if any(column.get(run) is not None for run in runs)]
    compared = [column for column in columns if column.compared]
    yardsticks = _yardsticks(runs)
    headings = ["", "wire", "server", *(column.heading.format(unit=runs[0].unit) for column in columns)]
    if yardsticks:
        headings += [f"{column.heading.format(unit=runs[0].unit)} ÷" for column in compared]
    lines = [_row(headings), _row(["---", "---", "---", *["---:"] * (len(headings) - 3)])]
    for (variant, wire, server), group in _grouped(runs).items():
        cells = [_cell(column, group) for column in columns]
        if yardsticks:
            others = [_of(runs, variant, wire, name) for name in yardsticks]
            cells += [" · ".join(_ratio(column, group, other) for other in others) for column in compared]
        lines.append(_row([variant, wire, server, *cells]))
    notes = sorted({f"- {run.server}, {run.wire}, {run.variant}: {note}" for run in runs for note in run.notes})
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _yardsticks(runs: Runs) -> list[str]:
    """What the others are divided by: the floors, and the checkout that was measured beside this one."""
    servers = dict.fromkeys(run.server for run in runs)
    return [name for name in servers if name in (FLOOR_SEND, FLOOR_COALESCE) or name.startswith(f"{QIYU} ")]


def _grouped(runs: Runs) -> dict[tuple[str, str, str], Runs]:
    groups: dict[tuple[str, str, str], Runs] = {}
    for run in sorted(runs, key=lambda run: run.wire):
        groups.setdefault((run.variant, run.wire, run.server), []).append(run)
    order = list(dict.fromkeys(run.variant for run in runs))
    return dict(sorted(groups.items(), key=lambda item: order.index(item[0][0])))


def _of(runs: Runs, variant: str, wire: str, server: str) -> Runs:
    """A server's runs, over the same wire if it speaks it: the floor speaks TCP alone."""
    found = [run for run in runs if run.variant == variant and run.server == server]
    return [run for run in found if run.wire == wire] or found


def _cell(column: Column, group: Runs) -> str:
    values = [value for run in group if (value := column.get(run)) is not None]
    if len(values) < len(group):  # too few were seen for this percentile
        return ""
    text = column.text.format(median(values))
    return f"{text} (saturated)" if column.heading == "generator" and median(values) > SATURATED else text


def _ratio(column: Column, group: Runs, yardstick: Runs) -> str:
    """The median of the rounds' ratios."""
    by_round = {run.round: column.get(run) for run in yardstick}
    ratios = [
        value / other
        for run in group
        if (value := column.get(run)) is not None and (other := by_round.get(run.round)) is not None and other
    ]
    return f"{median(ratios):.2f}" if ratios else "–"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _verdict(results: Results) -> str:
    lost = sum(run.lost for run in results.figures)
    doubled = sum(run.doubled for run in results.figures)
    lines = [f"{len(results.figures)} runs; counted at the receivers: {lost} lost, {doubled} doubled."]
    notes = [f"- {note}" for note in dict.fromkeys(results.notes)]
    failures = [f"- FAILED: {failure}" for failure in results.failures]
    return "\n".join([*lines, *([""] if notes or failures else []), *notes, *failures])
