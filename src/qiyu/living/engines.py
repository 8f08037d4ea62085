"""Pushes that come to an engine (nginx's rtmp module, SRS), which asks and tells us by HTTP.

An engine names a push by the number of the connection it came on, and reports the end of one that it refused as well.
So what it tells is looked up by that number, and a second publisher's end is not the first one's.

nginx says every few seconds that a push goes on; from the first time it does, the push is over where it says so no
more. SRS says nothing until the end, and is believed.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from qiyu.living.streams import Push, Streams
from qiyu.model import Instant

UPDATE_SECONDS: Final = 30.0
"""How long a push may go on without a word from an engine that has said one."""

Client: TypeAlias = tuple[str, str]
"""The engine's address, and its number for the connection."""


class Engines:
    """What engines have told."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._pushes: dict[Client, Push] = {}

    def __repr__(self) -> str:
        return f"<Engines pushes={len(self._pushes)}>"

    def begin(self, client: Client, room_id: int, now: Instant) -> None:
        """An engine asks whether this push may begin. Raises `PushRefused`."""
        push = self._streams.begin(room_id, lambda _reason: None, now)
        push.silent_seconds = float("inf")
        self._forget_ended()
        self._pushes[client] = push

    def goes_on(self, client: Client, now: Instant) -> bool:
        """A push goes on; False if it must not."""
        push = self._pushes.get(client)
        if push is None or push.ended:
            return False
        push.last_seen = now.monotonic
        push.silent_seconds = UPDATE_SECONDS
        return True

    def finish(self, client: Client) -> None:
        """A push is over, or never began."""
        push = self._pushes.pop(client, None)
        if push is not None:
            self._streams.finish(push)

    def _forget_ended(self) -> None:
        self._pushes = {client: push for client, push in self._pushes.items() if not push.ended}
