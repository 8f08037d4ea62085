"""The machine: who runs on which core, how many files there may be, and what it is."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import sys
import sysconfig
import time
from pathlib import Path
from typing import Final

_CORES: Final = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else [0]
SERVER_CORE: Final = _CORES[0]
GENERATOR_CORE: Final = _CORES[1 if len(_CORES) > 1 else 0]
SPARE_FILES: Final = 512
"""Files of a server that are no client's: those that qiyu sets aside, and more."""


def on_server_core() -> list[str]:
    """The command that pins what follows it to the server's core."""
    return ["taskset", "-c", str(SERVER_CORE)] if len(_CORES) > 1 else []


def pin_generator() -> None:
    """Keep this process off the server's core."""
    os.sched_setaffinity(0, {GENERATOR_CORE})


def raise_file_limit() -> int:
    """Ask for as many files as there may be (processes started later inherit that); returns how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def cpu_seconds(pid: int) -> float:
    """User and system time a process has used so far, all its threads together.

    As /proc/<pid>/stat has it, but not in ticks of 10 ms: the clock that clock_getcpuclockid(3) names.
    """
    return time.clock_gettime((~pid << 3) | 2)


def resident_bytes(pid: int) -> int:
    """Memory a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def description() -> dict[str, str]:
    """What is needed to judge figures by."""
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": str(len(_CORES)),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_version()}, {_build_of_python()}",
        "load at the start": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _build_of_python() -> str:
    """How it was compiled, which is worth up to a quarter of what anything costs."""
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    found = [
        name
        for name, option in (("optimized by a profile", "--enable-optimizations"), ("linked as a whole", "--with-lto"))
        if option in options
    ]
    if not found and sys.base_prefix == "/usr":
        return "the system's own build, of which it does not tell"  # Debian optimizes it, and leaves that out here
    return "built " + (" and ".join(found) or "without optimizations")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
