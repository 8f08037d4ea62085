"""Peers that will send nothing more: each gets its answers before its good-bye.

A peer leaves by the end of its stream, by a close frame, by LOGOUT, or by breaking the protocol. What it sent before
that may still wait for the database: a packet for its answer (`Endpoint.held`), a message to be stored
(`Endpoint.waiting`). So its good-bye waits as well, until nothing is left or its time is up: a database that does not
answer must not keep the connections of peers that are gone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import takewhile
from typing import Final, NamedTuple

from qiyu.model import Instant
from qiyu.routing.endpoint import Endpoint

DEPARTURE_SECONDS: Final = 15.0
"""Longer than the database may take for any one answer (drivers/message_writer.py, drivers/living.py)."""


class _Departure(NamedTuple):
    begun: float
    say_good_bye: Callable[[], None]


class Departures:
    """The endpoints whose good-bye waits."""

    def __init__(self) -> None:
        self._departures: dict[Endpoint, _Departure] = {}  # oldest first: all have the same time

    def __repr__(self) -> str:
        return f"<Departures {len(self)}>"

    def __len__(self) -> int:
        return len(self._departures)

    def after_all(self, endpoint: Endpoint, say_good_bye: Callable[[], None], now: Instant) -> None:
        """The peer has said its last: good-bye once all that it sent is answered. The first such good-bye stands."""
        if endpoint.ended or endpoint.leaving is not None:
            return
        if endpoint.held is None and not endpoint.waiting:
            say_good_bye()
        else:
            self._wait(endpoint, partial(_say_unless_held, endpoint, say_good_bye), say_good_bye, now)

    def after_stored(self, endpoint: Endpoint, say_good_bye: Callable[[], None], now: Instant) -> None:
        """The packet that is being handled is its last: good-bye once its messages are stored, whatever follows."""
        if endpoint.waiting:
            endpoint.hold()
            self._wait(endpoint, say_good_bye, say_good_bye, now)
        else:
            say_good_bye()

    def sweep(self, now: Instant) -> None:
        """Say good-bye to those who have waited long enough."""
        since = now.monotonic - DEPARTURE_SECONDS
        for endpoint, departure in list(takewhile(lambda item: item[1].begun <= since, self._departures.items())):
            if not endpoint.ended:
                departure.say_good_bye()
            self.forget(endpoint)

    def forget(self, endpoint: Endpoint) -> None:
        """Its connection is gone."""
        self._departures.pop(endpoint, None)
        endpoint.leaving = None

    def _wait(
        self, endpoint: Endpoint, leaving: Callable[[], None], say_good_bye: Callable[[], None], now: Instant
    ) -> None:
        endpoint.leaving = leaving
        earlier = self._departures.get(endpoint)
        begun = now.monotonic if earlier is None else earlier.begun
        self._departures[endpoint] = _Departure(begun, say_good_bye)


def _say_unless_held(endpoint: Endpoint, say_good_bye: Callable[[], None]) -> None:
    if endpoint.held is None:
        say_good_bye()
