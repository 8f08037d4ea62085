"""Which sockets are ready: epoll itself on Linux, `selectors` elsewhere (kqueue on macOS), behind one interface.

Both are themselves a file descriptor that becomes readable when one of theirs is ready: so trio waits for one thing.
"""

from __future__ import annotations

import contextlib
import select
import selectors
import sys
from collections.abc import Callable
from typing import Final, Protocol

READ: Final = 1  # EPOLLIN
WRITE: Final = 4  # EPOLLOUT
MAX_EVENTS: Final = 512


class EventSource(Protocol):
    """A set of sockets, level-triggered."""

    def fileno(self) -> int:
        """What to wait for."""
        ...

    def register(self, fd: int) -> None:
        """Watch `fd` for reading."""
        ...

    def watch(self, fd: int, events: int) -> None:
        """Watch `fd`, which is registered, for READ, WRITE, both or neither from now on.

        epoll tells of errors in any case; others may not, where it is neither.
        """
        ...

    def unregister(self, fd: int) -> None:
        """Forget `fd`, before it is closed."""
        ...

    def poll(self) -> list[tuple[int, int]]:
        """Who is ready now: (fd, READ and WRITE or'ed); a socket in error shows as neither, or as both."""
        ...

    def close(self) -> None:
        """Release the descriptor."""
        ...


if sys.platform == "linux":

    class EpollSource:
        """epoll, with nothing in between."""

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self.fileno = self._epoll.fileno
            self.close = self._epoll.close

        def register(self, fd: int) -> None:
            """See `EventSource.register`."""
            self._epoll.register(fd, READ)

        def watch(self, fd: int, events: int) -> None:
            """See `EventSource.watch`."""
            self._epoll.modify(fd, events)

        def unregister(self, fd: int) -> None:
            """See `EventSource.unregister`."""
            self._epoll.unregister(fd)

        def poll(self) -> list[tuple[int, int]]:
            """See `EventSource.poll`."""
            return self._epoll.poll(0, MAX_EVENTS)


class SelectorSource:
    """The standard library's best selector for the platform; it must have a file descriptor of its own."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.fileno: Callable[[], int] = self._selector.fileno  # type: ignore[attr-defined,unused-ignore]

    def register(self, fd: int) -> None:
        """See `EventSource.register`."""
        self._selector.register(fd, selectors.EVENT_READ)

    def watch(self, fd: int, events: int) -> None:
        """See `EventSource.watch`."""
        wanted = (selectors.EVENT_READ if events & READ else 0) | (selectors.EVENT_WRITE if events & WRITE else 0)
        self.unregister(fd)  # a selector watches nothing for nothing
        if wanted:
            self._selector.register(fd, wanted)

    def unregister(self, fd: int) -> None:
        """See `EventSource.unregister`."""
        with contextlib.suppress(KeyError):  # it is watched for nothing
            self._selector.unregister(fd)

    def close(self) -> None:
        """See `EventSource.close`."""
        self._selector.close()

    def poll(self) -> list[tuple[int, int]]:
        """See `EventSource.poll`."""
        return [
            (
                key.fd,
                (READ if events & selectors.EVENT_READ else 0) | (WRITE if events & selectors.EVENT_WRITE else 0),
            )
            for key, events in self._selector.select(0)[:MAX_EVENTS]
        ]


def best_source() -> EventSource:
    """The fastest one of this platform."""
    return EpollSource() if sys.platform == "linux" else SelectorSource()
