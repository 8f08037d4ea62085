"""Sessions with nothing around them."""

from __future__ import annotations

from typing import cast

from qiyu.handlers.registry import NOT_LOGGED_IN
from qiyu.protocol.tcp import TcpWire
from qiyu.protocol.wire import Wire
from qiyu.routing.endpoint import Door, Owner
from qiyu.routing.outbox import Outbox, Outboxes, OutboxLimits
from qiyu.routing.session import Session

NOBODY = cast("Owner", None)


def make_session(number: int = 1, wire: Wire | None = None, outbox: Outbox | None = None) -> Session:
    """A session that belongs to nobody, on a TCP wire without limits unless another is given."""
    door = Door(lambda: wire or TcpWire(0), NOBODY, NOT_LOGGED_IN)
    return Session(number, door, outbox or Outboxes(OutboxLimits(0, 0)).open(lambda _: None), b"", 0.0)
