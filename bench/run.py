"""Runs a plan: every server on a workload in turn, round after round, so that what disturbs one disturbs all."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench import machine
from bench.clients import Fault, NotServed
from bench.figures import Figures
from bench.plan import Plan, peers_do
from bench.process import StartFailed
from bench.servers import Kind, Server
from bench.wires import ProtocolFault, Refused
from bench.workloads import Workload
from bench.workloads.native import NativeRoomChat

FAILURES = (Fault, ProtocolFault, Refused, OSError)


@dataclass
class Results:
    """All that a run found out."""

    about: dict[str, str]
    figures: list[Figures] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was left out, and why."""
    failures: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing failed, was lost or came twice."""
        return not self.failures and not any(run.lost or run.doubled for run in self.figures)

    def save(self, path: Path) -> None:
        """As JSON."""
        runs = [figures.as_json() for figures in self.figures]
        content = {"about": self.about, "notes": self.notes, "failures": self.failures, "runs": runs}
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """What `save` wrote."""
        content: dict[str, Any] = json.loads(path.read_text())
        runs = [Figures.from_json(fields) for fields in content["runs"]]
        return cls(content["about"], runs, content["notes"], content["failures"])


@dataclass(frozen=True)
class Step:
    """One run of one workload on one server."""

    workload: Workload
    wire: str
    kind: Kind
    round: int

    def __str__(self) -> str:
        return f"{self.workload.name} {self.workload.variant}, {self.wire}: {self.kind.name}"


def steps(plan: Plan, kinds: Sequence[Kind], wires: Sequence[str]) -> list[Step]:
    """In order; peers do only one of the workloads."""
    return [
        Step(workload, wire, kind, turn)
        for workload in plan.workloads
        for turn in range(plan.rounds)
        for wire in wires
        for kind in kinds
        if wire in kind.wires and workload.needs in kind.can and (not kind.is_peer or _does(kind, workload))
    ]


def _does(peer: Kind, workload: Workload) -> bool:
    return peers_do(workload) and (peer.speaks_qiyu or not isinstance(workload, NativeRoomChat))


class Runner:
    """Keeps the servers, which stay up between their runs; one that does nothing costs nothing."""

    def __init__(self, plan: Plan, results: Results) -> None:
        self._plan = plan
        self._results = results
        self._servers: dict[Kind, Server] = {}
        self._left_out: set[tuple[Workload, str, Kind]] = set()
        self._broken: set[Kind] = set()

    def run(self, todo: Sequence[Step], saved: Callable[[], None]) -> None:
        """All steps, showing how far it is; `saved` is called after each."""
        # One line that is drawn between runs, not by a thread of its own: nothing else is to run on this core.
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(),
        )  # fmt: skip
        gc.disable()
        try:
            with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as progress:
                task = progress.add_task("", total=len(todo))
                for step in todo:
                    progress.update(task, description=str(step), refresh=True)
                    self._step(step)
                    gc.collect()
                    saved()
                    progress.advance(task)
                    progress.refresh()
        finally:
            gc.enable()
            for server in self._servers.values():
                server.stop()

    def _step(self, step: Step) -> None:
        key = (step.workload, step.wire, step.kind)
        if key in self._left_out or step.kind in self._broken:
            return
        try:
            figures = self._measure(step)
        except NotServed as reason:
            self._left_out.add(key)
            self._results.notes.append(f"{step}: needs a newer server ({reason})")
            return
        except StartFailed as failure:
            self._broken.add(step.kind)
            self._results.failures.append(str(failure))
            return
        except FAILURES as failure:
            self._left_out.add(key)
            self._results.failures.append(f"{step}: {type(failure).__name__}: {failure}")
            self._stop(step.kind)
            return
        figures.workload, figures.variant = step.workload.name, step.workload.variant
        figures.connections = step.workload.connections
        figures.wire, figures.server, figures.round = step.wire, step.kind.name, step.round
        self._results.figures.append(figures)
        if figures.lost or figures.doubled:
            self._results.failures.append(f"{step}: {figures.lost} lost, {figures.doubled} doubled")

    def _measure(self, step: Step) -> Figures:
        if not step.workload.fresh:
            if step.kind not in self._servers:
                self._servers[step.kind] = step.kind.start()
            return step.workload.run(self._servers[step.kind], step.wire, self._plan.span)
        server = step.kind.start()
        try:
            return step.workload.run(server, step.wire, self._plan.span)
        finally:
            server.stop()

    def _stop(self, kind: Kind) -> None:
        server = self._servers.pop(kind, None)
        if server is not None:
            server.stop()


def about(arguments: Sequence[str]) -> dict[str, str]:
    """When, where, and how it was called."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"date": now, "arguments": " ".join(arguments) or "none"} | machine.description()
