"""What one run did and what it cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from bench.process import Process

SATURATED = 0.9


@dataclass
class Figures:
    """One run of one workload on one server. Times of `latency_ms` are keyed by percentile: p50, p99, p99.9."""

    unit: str
    done: int = 0
    seconds: float = 0.0
    server_cpu: float | None = None
    generator_cpu: float = 0.0
    latency_ms: dict[str, float] = field(default_factory=dict)
    bytes_each: float | None = None
    reads: int = 0
    segments: int = 0
    lost: int = 0
    doubled: int = 0
    notes: list[str] = field(default_factory=list)
    # Filled in by whoever ran it.
    workload: str = ""
    variant: str = ""
    wire: str = ""
    server: str = ""
    connections: int = 0
    round: int = 0

    @property
    def rate(self) -> float | None:
        """What was done in a second."""
        return self.done / self.seconds if self.seconds and self.done else None

    @property
    def cost(self) -> float | None:
        """Seconds of server CPU for 100,000 of what was done."""
        return 100_000 * self.server_cpu / self.done if self.server_cpu is not None and self.done else None

    @property
    def own_coalescing(self) -> float | None:
        """Of the joining of packets, the share that is the generator's: its reads found what had been sent apart."""
        joined = self.done - self.reads
        return min(1, max(0, self.segments - self.reads) / joined) if self.segments and joined > 0 else None

    @property
    def generator_share(self) -> float | None:
        """How much of its core the generator used."""
        return self.generator_cpu / self.seconds if self.seconds else None

    def as_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """What `as_json` made."""
        return cls(**fields)


class Meter:
    """Measures a stretch of time: wall clock, the server's CPU and the generator's."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._start = time.perf_counter()
        self._server = process.cpu_seconds()
        self._own = time.process_time()

    def read(self, unit: str, done: int) -> Figures:
        """Since it was made."""
        seconds = time.perf_counter() - self._start
        server = self._process.cpu_seconds() - self._server
        own = time.process_time() - self._own
        figures = Figures(unit, done, seconds, server, own)
        if own / seconds > SATURATED:
            figures.notes.append("generator saturated")
        return figures


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p99 and p99.9 in milliseconds; the last only where there are enough values to speak of it."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    wanted = {"p50": 0.5, "p99": 0.99} | ({"p99.9": 0.999} if len(ordered) >= 1000 else {})
    return {name: 1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)] for name, share in wanted.items()}
