from __future__ import annotations

from typing import Final

FIRST: Final = "0"
"""What stands before the first message of a room."""


class Cursors:
    """How far each room was read: the newest msgId that it has sent or named, for the rooms that were used last.

    Named as `afterMsgId` when a room is entered, it brings what was written since. An ERROR 206 says that there is a
    gap, so cursors stand still until the next answer to ROOM: the room's next entry begins before the gap.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._newest: dict[int, str] = {}  # least recently used first
        self._frozen = False

    def __repr__(self) -> str:
        return f"<Cursors rooms={len(self._newest)} frozen={self._frozen}>"

    @property
    def has_gap(self) -> bool:
        """The server has left something out, and has not been asked for it."""
        return self._frozen

    def of(self, room_id: int | None) -> str:
        """The newest msgId, or "" where none is known."""
        return self._newest.get(room_id, "") if room_id is not None else ""

    def arrived(self, room_id: int, msg_id: str) -> None:
        """A message of the room is in the application's queue."""
        if msg_id and not self._frozen:
            self._advance(room_id, msg_id)

    def dropped(self, room_id: int | None = None, last_msg_id: str = "") -> None:
        """The server left messages of the room out from here on; the last that it sent was this, where it says so."""
        if room_id is not None and last_msg_id:
            self.arrived(room_id, last_msg_id)
        self._frozen = True

    def entered(self, room_id: int | None, after_msg_id: str, last_msg_id: str | None = None) -> None:
        """The server answered ROOM: what comes now follows `after_msg_id`, or where none was named `last_msg_id`.

        That is "" in a room that has no message yet, which is a place to go on from too; None if it was not said.
        """
        self._frozen = False
        if room_id is None:
            return
        after_msg_id = after_msg_id or (FIRST if last_msg_id == "" else last_msg_id or "")
        if after_msg_id or room_id in self._newest:
            self._advance(room_id, after_msg_id)

    def forget(self) -> None:
        """Nothing is known of any room any more."""
        self._newest.clear()
        self._frozen = False

    def _advance(self, room_id: int, msg_id: str) -> None:
        self._newest[room_id] = max(self._newest.pop(room_id, ""), msg_id, key=_age)
        if len(self._newest) > self._most:
            del self._newest[next(iter(self._newest))]


def _age(msg_id: str) -> tuple[int, str]:
    """A key that sorts decimal numbers without a leading zero."""
    return len(msg_id), msg_id
