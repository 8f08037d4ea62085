"""`make abuse`: see the package's docstring."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import trio

from abuse.attacks import ATTACKS
from abuse.crowd import endure
from abuse.quiet import FLOODS, measure
from crash.server import ServerProcess

# The limits as they are, but that the crowd comes from one address, and all at once.
LIMITS = {
    "LIMITS__CONNECTIONS_PER_ADDRESS": "2000",
    "LIMITS__LOGINS_PER_SECOND": "1000",
    "LIMITS__PACKETS_PER_SECOND": "100",
    "LIMITS__MESSAGES_PER_SECOND": "20",
}


def main() -> None:
    """Exit status 1 where others noticed more of an attack than they may."""
    parser = argparse.ArgumentParser(prog="abuse", description="Attack a server, and see what others notice.")
    parser.add_argument("--seconds", type=float, default=3.0, help="for which each attack is measured")
    parser.add_argument("--attacks", default="", help="only those with one of these words in their name, by commas")
    parser.add_argument("--counts", default="1,8", help="connections that attack, by commas")
    parser.add_argument("--people", type=int, default=300, help="honest people in the room")
    parser.add_argument("--connections", type=int, default=10, help="that attack the room")
    parser.add_argument("--short", action="store_true", help="few people, short, and only delivery is judged")
    parser.add_argument("--against", type=Path, help="attack the server of this checkout instead")
    arguments = parser.parse_args()
    counts = tuple(map(int, arguments.counts.split(",")))
    words = arguments.attacks.split(",")
    floods = () if arguments.short else tuple(name for name in FLOODS if any(word in name for word in words))
    names = [name for name in ATTACKS if any(word in name for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        server = ServerProcess(Path(folder), "", LIMITS, arguments.against)
        people, seconds = (40, 1.0) if arguments.short else (arguments.people, arguments.seconds)

        def attack() -> bool:
            is_quick = measure(server, seconds, floods, counts) if floods else True
            is_whole, in_time = endure(server, names, people, seconds, arguments.connections)
            return is_whole and (arguments.short or (is_quick and in_time))

        is_good = trio.run(_run, server, attack)
    sys.exit(0 if is_good else 1)


async def _run(server: ServerProcess, attack: Callable[[], bool]) -> bool:
    async with trio.open_nursery() as nursery:
        await server.start(nursery)
        try:
            return await trio.to_thread.run_sync(attack)
        finally:
            server.kill()
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    main()
