"""`python -m fuzzing`, with tests/ on the path: all targets in turn, or those that are named.

Each runs in a process of its own, instrumented by atheris, from the seeds in tests/corpus. An input that a parser
cannot take is put among them: then `tests/fuzzing/test_targets.py` fails until the parser is mended.
"""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

CORPUS: Final = Path(__file__).parent.parent / "corpus"
LONGEST_BYTES: Final = 4096
_RUNS: Final = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


def main() -> int:
    """Returns 1 where any input was too much for a parser."""
    parser = argparse.ArgumentParser(prog="fuzzing", description="Fuzz the parsers, with coverage.")
    parser.add_argument("targets", nargs="*", help="by default all")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all of them together")
    parser.add_argument("--inputs", type=Path, help="where new inputs are kept, and gone on from the next time")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.alone:
        _fuzz(chosen.targets[0], chosen.minutes * 60, chosen.inputs)
    names = chosen.targets or sorted(path.name for path in CORPUS.iterdir())
    failed = []
    with tempfile.TemporaryDirectory(prefix="qiyu-fuzz-") as folder:
        for name in names:
            inputs = (chosen.inputs or Path(folder)) / name
            inputs.mkdir(parents=True, exist_ok=True)
            if not _run(name, chosen.minutes / len(names), inputs):
                failed.append(name)
    return int(bool(failed))


def _run(name: str, minutes: float, inputs: Path) -> bool:
    command = [sys.executable, "-m", "fuzzing", name, "--alone", "--minutes", f"{minutes}", "--inputs", f"{inputs}"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    runs = _RUNS.search(done.stderr)
    found = len(list(inputs.iterdir()))
    told = f"{int(runs[1]):,} inputs, {found} of them worth keeping" if runs else "it did not come to its end"
    sys.stdout.write(f"{name:16} {told}{'' if done.returncode == 0 else ': FAILED'}\n")
    if done.returncode != 0:
        sys.stdout.write(done.stdout + done.stderr)
    sys.stdout.flush()
    return done.returncode == 0


def _fuzz(name: str, seconds: float, inputs: Path) -> None:
    """Never returns: libFuzzer ends the process."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["qiyu", "h11"]):
        targets = importlib.import_module("fuzzing.targets")
    seeds = CORPUS / name
    flags = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={LONGEST_BYTES}",
        "-timeout=20",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        f"-artifact_prefix={seeds}/",
    ]
    atheris.Setup([sys.argv[0], *flags, str(inputs), str(seeds)], targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
