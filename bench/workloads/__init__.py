"""What the servers are made to do: one file a workload.

A workload is a dataclass of its parameters with a `run`, which connects, drives, counts at the receivers, and returns
figures. Whatever comes before the measured stretch and after it is checked as strictly, but not measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bench.clients import READ_BYTES
from bench.figures import Figures
from bench.servers import Can, Server


@dataclass(frozen=True)
class Span:
    """How long to measure, after how long a start, and how clients read and write meanwhile."""

    seconds: float
    warm_up: float
    read_bytes: int = READ_BYTES
    """How much a client reads at once."""
    single_writes: bool = False
    """Each ACK is written alone, and not all those of one read together."""


class Workload(Protocol):
    """One workload with its parameters."""

    @property
    def name(self) -> str:
        """What it is filed under."""
        ...

    @property
    def variant(self) -> str:
        """Its parameters, to be read by people."""
        ...

    @property
    def needs(self) -> Can:
        """What a server must serve."""
        ...

    @property
    def fresh(self) -> bool:
        """Whether the server must not have done anything before."""
        ...

    @property
    def connections(self) -> int:
        """How many it needs at once."""
        ...

    def run(self, server: Server, wire: str, span: Span) -> Figures:
        """Raises `Fault` where a figure would mean nothing, `NotServed` where the server has not what it takes."""
        ...
