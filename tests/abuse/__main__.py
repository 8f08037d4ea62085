"""`make abuse`: see the package's docstring."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import trio

from abuse.quiet import FLOODS, measure
from crash.server import ServerProcess


def main() -> None:
    """Exit status 1 where others noticed more of an attack than they may."""
    parser = argparse.ArgumentParser(prog="abuse", description="Attack a server, and see what others notice.")
    parser.add_argument("--seconds", type=float, default=3.0, help="for which each attack is measured")
    parser.add_argument("--attacks", default="", help="only those with one of these words in their name, by commas")
    parser.add_argument("--counts", default="1,8", help="connections that attack, by commas")
    parser.add_argument("--against", type=Path, help="attack the server of this checkout instead")
    arguments = parser.parse_args()
    counts = tuple(map(int, arguments.counts.split(",")))
    names = tuple(name for name in FLOODS if any(word in name for word in arguments.attacks.split(",")))
    with tempfile.TemporaryDirectory() as folder:
        server = ServerProcess(Path(folder), "", checkout=arguments.against)
        is_good = trio.run(_run, server, arguments.seconds, names, counts)
    sys.exit(0 if is_good else 1)


async def _run(server: ServerProcess, seconds: float, names: tuple[str, ...], counts: tuple[int, ...]) -> bool:
    async with trio.open_nursery() as nursery:
        await server.start(nursery)
        try:
            return await trio.to_thread.run_sync(measure, server, seconds, names, counts)
        finally:
            server.kill()
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    main()
