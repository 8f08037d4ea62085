from __future__ import annotations

import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from qiyu.protocol.packet import HEARTBEAT_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a client may be told to do otherwise."""

    heartbeat_seconds: float = HEARTBEAT_SECONDS
    """A server that says nothing for two of these counts as lost."""
    connect_seconds: float = 10.0
    """For the connection, and again for the login and for the room on it."""
    send_seconds: float = 10.0
    """How long a call waits for a connection before it raises `NotConnected`; one with a receipt has the next one."""
    receipt_seconds: float = 30.0
    """How long a message may take, from the call to its receipt, with all that is sent again meanwhile."""
    unreceipted_messages: int = 1000
    """Messages that are out and have no receipt yet; further calls wait their turn."""
    body_bytes: int = 65_536
    """The longest body that the server takes (`[limits] body_bytes`). A longer message is refused here, for the server
    would close the connection over it, each time it is sent."""
    answer_seconds: float = 10.0
    """How long ROOM may go unanswered before the connection counts as lost."""
    logout_seconds: float = 1.0
    """How long the answer to LOGOUT is awaited."""
    retry_base_seconds: float = 0.5
    retry_cap_seconds: float = 30.0
    """The wait before the nth retry is anything from 0 to base * 2^n, and to this at most."""
    jitter: Callable[[], float] = random.random
    """A number from 0 to 1: how much of that wait is waited."""
    queue_items: int = 1000
    """Items that wait for the application, twice as many while a call waits for its answer; when it is full, nothing
    more is read from the server, receipts neither."""
    remembered_messages: int = 4096
    """Messages that are known to be doubles when they come again."""
    remembered_rooms: int = 100
    """Rooms of which the last msgId is known when they are entered again."""
    ssl_context: ssl.SSLContext | None = None
    """For tls:// and wss://, instead of Python's default. `ssl.create_default_context(cafile="ca.pem")` believes just
    the authorities in that file."""


DEFAULTS: Final = Options()
