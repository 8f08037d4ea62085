"""`python -m crash`, with tests/ on the path."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import trio

from crash.run import Options, crash


def echo(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Returns 1 if anything was wrong; the history then lies beside the server's log and data."""
    default = Options()
    parser = argparse.ArgumentParser(prog="crash", description="Kill a server under load, and see what was lost.")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="how long it is disturbed")
    parser.add_argument("--kills", type=int, default=default.kills, help="SIGKILLs in that time")
    parser.add_argument("--clients", type=int, default=default.clients)
    parser.add_argument("--rooms", type=int, default=default.rooms)
    parser.add_argument("--pause", type=float, default=default.pause, help="seconds between two things a client does")
    parser.add_argument("--no-faults", action="store_true", help="leave the database alone")
    parser.add_argument("--database", choices=["sqlite", "postgresql", "mariadb"], default=default.database)
    parser.add_argument("--url", default="", help="of a database on the server where one is made for the run")
    parser.add_argument("--instances", type=int, default=default.instances, help="several, with a Redis of their own")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--keep", action="store_true", help="keep history, log and data even where nothing was wrong")
    chosen = parser.parse_args()
    options = Options(
        seconds=chosen.seconds,
        kills=chosen.kills,
        clients=chosen.clients,
        rooms=chosen.rooms,
        pause=chosen.pause,
        faults=not chosen.no_faults,
        database=chosen.database,
        url=chosen.url,
        seed=chosen.seed,
        instances=chosen.instances,
    )
    with tempfile.TemporaryDirectory(prefix="qiyu-crash-") as name:
        folder = Path(name)
        begin = time.monotonic()

        def say(line: str) -> None:
            echo(f"{time.monotonic() - begin:6.1f} s  {line}")

        say(f"{options.database}, seed {options.seed}")
        result = trio.run(crash, options, say, folder)
        echo(result.summary())
        if result.is_good and not chosen.keep:
            return 0
        kept = Path(tempfile.mkdtemp(prefix="qiyu-crash-kept-"))
        for path in list(folder.iterdir()):
            path.rename(kept / path.name)
        (kept / "history.jsonl").write_text(result.history.to_jsonl())
        echo(f"history, log and data: {kept}")
        return 0 if result.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
