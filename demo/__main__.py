"""`python -m demo`: a server with rooms, an anchor, and a few dozen people who talk. Ctrl-C ends it; nothing stays."""

from __future__ import annotations

import argparse
import sys

import trio

from demo.cast import ROOMS, VIEWERS
from demo.crowd import talk, test_picture
from demo.server import Demo, demo_server

PASSWORD = "correct horse"  # noqa: S105  # of accounts that are gone with the demo


def open_rooms(demo: Demo) -> list[tuple[str, int]]:
    """All the rooms there are to be: their anchors' sessions and their numbers, the first first."""
    rooms = []
    for number, (nick_name, kind, name) in reversed(list(enumerate(ROOMS))):  # the newest stands first in the list
        _, session = demo.account(f"anchor{number}" if number else "anchor", nick_name, PASSWORD, vip=True)
        room_id = demo.call("living/startingLiving", session, type=kind, roomName=name)["roomId"]
        rooms.append((session, room_id))
    return rooms[::-1]


def main() -> None:
    """Run until somebody has seen enough."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    for name, port in (("tcp", 8085), ("ws", 8086), ("http", 8080), ("rtmp", 1935)):
        parser.add_argument(f"--{name}", type=int, default=port, metavar="PORT", help=f"{port} unless given")
    ports = vars(parser.parse_args())
    with demo_server(ports) as demo:
        (session, room_id), *_ = open_rooms(demo)
        config = demo.call("living/anchorConfig", session, roomId=room_id)
        with test_picture(config.get("pushUrl"), config.get("streamKey")) as picture:
            say(f"{len(ROOMS)} rooms, {len(VIEWERS)} people talking in one of them, {picture}.")
            say(f"Open {demo.url}#/room/{room_id} and sign up,")
            say(f"or sign in as its anchor: name anchor, password {PASSWORD!r}. Ctrl-C ends it.")
            try:
                trio.run(talk, demo, room_id)
            except* KeyboardInterrupt:
                say("")


def say(line: str) -> None:
    """On the terminal, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
