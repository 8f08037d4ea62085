"""`python -m soak`, with tests/ on the path."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import trio

from soak.run import Options, soak


def main() -> int:
    """Returns 1 if anything was wrong; the server's log and data are then kept."""
    default = Options()
    parser = argparse.ArgumentParser(prog="soak", description="See whether a server holds the same after a long run.")
    parser.add_argument("--minutes", type=float, default=default.seconds / 60)
    parser.add_argument("--crowds", type=int, default=default.crowds, help="processes full of clients")
    parser.add_argument("--clients", type=int, default=default.clients, help="of each crowd")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    chosen = parser.parse_args()
    options = Options(seconds=chosen.minutes * 60, crowds=chosen.crowds, clients=chosen.clients, seed=chosen.seed)
    begin = time.monotonic()

    def say(line: str) -> None:
        sys.stdout.write(f"{time.monotonic() - begin:7.1f} s  {line}\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory(prefix="qiyu-soak-") as name:
        say(f"seed {options.seed}")
        record, faults = trio.run(soak, options, Path(name), say)
        for how, count in sorted(record.ends.items()):
            say(f"{count:6} connections: {how}")
        for fault in faults:
            say(f"WRONG: {fault}")
        if faults:
            kept = Path(tempfile.mkdtemp(prefix="qiyu-soak-kept-"))
            for path in list(Path(name).iterdir()):
                path.rename(kept / path.name)
            say(f"log and data: {kept}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
