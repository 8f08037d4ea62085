from __future__ import annotations

from types import TracebackType
from typing import Literal

import trio


class BackgroundTasks:
    """A nursery for what runs behind an `async with`, cancelled when the body ends.

    trio's own nursery puts whatever leaves its body into an ExceptionGroup, and the caller's `except Kicked` would
    never see it. Here the body's exception comes out as it is, and so does a task's, where there is only one.
    """

    def __init__(self) -> None:
        self._manager = trio.open_nursery()

    async def __aenter__(self) -> trio.Nursery:
        self._nursery = await self._manager.__aenter__()
        return self._nursery

    async def __aexit__(
        self, _type: type[BaseException] | None, exc: BaseException | None, _tb: TracebackType | None
    ) -> Literal[False]:
        self._nursery.cancel_scope.cancel()
        failure: BaseException | None = None
        try:
            # Not with `exc`: it would come back in a group.
            await self._manager.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            failure = group
        if failure is not None and _outweighs(failure, exc):
            raise _alone(failure)
        return False


def _outweighs(failure: BaseException, exc: BaseException | None) -> bool:
    """Whether what the tasks raised is news beside what the body raised."""
    if exc is None:
        return True
    return not _is_cancellation(failure) and (_is_cancellation(exc) or not isinstance(failure, Exception))


def _is_cancellation(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(trio.Cancelled)[1] is None
    return isinstance(exc, trio.Cancelled)


def _alone(exc: BaseException) -> BaseException:
    if isinstance(exc, BaseExceptionGroup) and not _is_cancellation(exc):
        exc = exc.split(trio.Cancelled)[1] or exc
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc
