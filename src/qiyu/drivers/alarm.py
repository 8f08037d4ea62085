"""Wakes the poller when another task has given it something to send."""

from __future__ import annotations

import contextlib
import os


class Alarm:
    """A pipe to oneself, for any event source: readable from `ring` until `clear`."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        """The end to watch for reading."""
        return self._reader

    def ring(self) -> None:
        """Become readable."""
        with contextlib.suppress(BlockingIOError):  # full of rings: readable already
            os.write(self._writer, b"\0")

    def clear(self) -> None:
        """Become silent again."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)

    def close(self) -> None:
        """Release both ends."""
        os.close(self._reader)
        os.close(self._writer)
