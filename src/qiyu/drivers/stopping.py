"""How a server is told to stop: the first time it ends a start, or says its good-byes; the second cuts these short."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import trio


class Stop:
    """Whether, and how often, the server has been told to."""

    def __init__(self, stops: AsyncIterator[object]) -> None:
        self._stops = stops
        self._scope = trio.CancelScope()
        self.serves = False
        """Set once it serves: until then there are no good-byes to say, and it ends at once."""
        self.told = trio.Event()
        self.told_again = trio.Event()

    def __repr__(self) -> str:
        return f"<Stop serves={self.serves} told={self.told.is_set()} told_again={self.told_again.is_set()}>"

    async def unless_told(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Do `work` while listening, and say whether it came to its end by itself.

        What it raises comes out as it is.
        """
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            with self._scope:
                try:
                    await work()
                except Exception as exc:  # noqa: BLE001  # raised again below, where the nursery does not wrap it
                    failure = exc
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return not self._scope.cancelled_caught

    async def _listen(self) -> None:
        async for _ in self._stops:
            if self.told.is_set():
                self.told_again.set()
            self.told.set()
            if not self.serves:
                self._scope.cancel()
