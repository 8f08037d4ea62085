"""What a server holds, sample by sample, and whether that stays what it was."""

from __future__ import annotations

import os
import re
import statistics
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

GAUGES: Final = ("qiyu_sessions", "qiyu_outbox_bytes", "qiyu_deliveries_in_flight", "qiyu_messages_waiting")
"""All of them are zero once nobody is there."""
GROWTH: Final = 0.1
GROWTH_BYTES: Final = 8 * 1024 * 1024
"""So much more, and this, may be resident in the last quarter of a run than in the second."""
JUDGED_SECONDS: Final = 300.0
"""In a shorter run memory is still finding its size: Python keeps what it was given once."""
SPARE_FILES: Final = 16
"""The database opens connections when it first needs them; SQLite, four of them with three files each."""

_NUMBER: Final = re.compile(r"^(\w+) ([0-9.e+]+)$", re.MULTILINE)


class Sample(NamedTuple):
    """One look at a server."""

    at: float
    resident_bytes: int
    files: int
    numbers: dict[str, float]
    """What /metrics has."""

    def __str__(self) -> str:
        sessions, owed, in_flight, waiting = (int(self.numbers.get(name, 0)) for name in GAUGES)
        return (
            f"{self.resident_bytes / 2**20:6.1f} MiB, {self.files:4} files, {sessions:4} sessions, "
            f"{owed:8} bytes owed, {in_flight:6} in flight, {waiting:4} waiting"
        )


def look(pid: int, http: str, at: float) -> Sample:
    """Take one; this waits for the server's answer."""
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    status = Path(f"/proc/{pid}/statm").read_text()
    resident = int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return Sample(at, resident, len(list(Path(f"/proc/{pid}/fd").iterdir())), numbers_in(text))


def numbers_in(text: str) -> dict[str, float]:
    """The lines without labels of a page of metrics."""
    return {name: float(value) for name, value in _NUMBER.findall(text)}


@dataclass
class Record:
    """A run."""

    before: Sample
    samples: list[Sample] = field(default_factory=list)
    after: Sample | None = None
    """Once everybody is gone."""
    ends: Counter[str] = field(default_factory=Counter)
    """How connections ended, as their clients saw it."""


EXPLAINED: Final = frozenset(
    {
        "logged out",
        "half-closed",
        "vanish",
        "reset",
        "stall",
        "sleep",
        "storm",
        "ended as replaced",
        "ended as idle",
        "ended as slow",
    }
)


def judge(record: Record) -> list[str]:
    """What is wrong, in words."""
    faults = [f"{count} × {how}" for how, count in record.ends.items() if how not in EXPLAINED]
    if not record.ends:
        faults.append("no connection ended: nobody came")
    faults += memory_faults(record.samples)
    after = record.after
    if after is None:
        return [*faults, "it was not looked at after the run"]
    if after.files > record.before.files + SPARE_FILES:
        faults.append(f"{after.files} files are open when everybody is gone; at the start {record.before.files} were")
    faults += [f"{name} is {after.numbers[name]:g} when everybody is gone" for name in GAUGES if after.numbers[name]]
    if after.numbers.get("qiyu_connections_crashed_total"):
        faults.append("connections were closed because of a bug; see the server's log")
    return faults


def memory_faults(samples: Sequence[Sample]) -> list[str]:
    """Whether more and more is resident."""
    if not samples or samples[-1].at - samples[0].at < JUDGED_SECONDS:
        return []
    quarter = len(samples) // 4
    early = statistics.median(each.resident_bytes for each in samples[quarter : 2 * quarter])
    late = statistics.median(each.resident_bytes for each in samples[-quarter:])
    if late > early * (1 + GROWTH) + GROWTH_BYTES:
        return [f"memory grew from {early / 2**20:.1f} to {late / 2**20:.1f} MiB"]
    return []
