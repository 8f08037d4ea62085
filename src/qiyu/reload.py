"""What SIGHUP changes in a server that runs; of all other settings the log says that they want a restart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog

from qiyu.app import App, doors, handshake_rules, http_rules, introducing_proxies, rates, session_rules
from qiyu.config import Settings
from qiyu.drivers.listener import capacity
from qiyu.errors import StartupError
from qiyu.logs import set_level

log = structlog.get_logger(__name__)


def _allowed_origins(app: App, settings: Settings) -> None:
    app.node.origins.listed = frozenset(settings.ws.allowed_origins)


def _cors_origins(app: App, settings: Settings) -> None:
    app.web_context.origins.listed = frozenset(settings.http.cors_origins)


def _seconds(app: App, settings: Settings) -> None:
    app.node.sessions.rules = session_rules(settings)
    app.node.viewers.login_seconds = settings.limits.login_seconds
    app.node.publishers.begin_seconds = settings.limits.login_seconds


def _body_bytes(app: App, settings: Settings) -> None:
    """For connections that come from now on."""
    made = doors(settings, app.node)
    for name, listeners in app.listeners.items():
        for listener in listeners:
            listener.door = made[name]


def _proxies(app: App, settings: Settings) -> None:
    networks = introducing_proxies(settings)
    for name, listeners in app.listeners.items():
        for listener in listeners:
            listener.proxies = networks[name]


def _content_chars(app: App, settings: Settings) -> None:
    app.node.chat.content_chars = settings.limits.content_chars


def _outboxes(app: App, settings: Settings) -> None:
    """The hard bound counts for connections that come from now on."""
    limits = settings.limits
    app.node.outboxes.change(limits.outbox_soft_bytes, limits.outbox_hard_bytes, limits.queued_bytes)


def _connections(app: App, settings: Settings) -> None:
    room = capacity(settings.limits.connections, settings.http.connections)
    for listeners in app.listeners.values():
        for listener in listeners:
            listener.connections = room
            listener.per_address = settings.limits.connections_per_address


def _http(app: App, settings: Settings) -> None:
    app.http.change(http_rules(settings))


def _handshakes(app: App, settings: Settings) -> None:
    app.poller.handshakes.rules = handshake_rules(settings)
    app.http.change(http_rules(settings))


def _level(_app: App, settings: Settings) -> None:
    set_level(settings.log.level)


def _rates(app: App, settings: Settings) -> None:
    app.node.limits.rates = rates(settings)


RELOADED: Final[Mapping[str, Callable[[App, Settings], None]]] = {
    "tcp.proxy_protocol": _proxies,
    "ws.proxy_protocol": _proxies,
    "ws.allowed_origins": _allowed_origins,
    "http.cors_origins": _cors_origins,
    "http.keep_alive_seconds": _http,
    "http.request_seconds": _http,
    "http.answer_seconds": _http,
    "http.connections": _http,
    "http.connections_per_address": _http,
    "http.requests": _http,
    "session.heartbeat_seconds": _seconds,
    "limits.login_seconds": _seconds,
    "limits.body_bytes": _body_bytes,
    "limits.content_chars": _content_chars,
    "limits.messages_per_second": _rates,
    "limits.messages_burst": _rates,
    "limits.packets_per_second": _rates,
    "limits.packets_burst": _rates,
    "limits.room_messages_per_second": _rates,
    "limits.logins_per_second": _rates,
    "limits.queued_bytes": _outboxes,
    "limits.outbox_soft_bytes": _outboxes,
    "limits.outbox_hard_bytes": _outboxes,
    "limits.connections_per_address": _connections,
    "limits.connections": _connections,
    "tls.handshakes": _handshakes,
    "tls.handshake_seconds": _handshakes,
    "log.level": _level,
}
"""By the name of the setting, what makes it count."""


def apply(app: App, old: Settings, new: Settings) -> Settings:
    """Let what has changed count, as far as it can while the server runs, and say what could not.

    The certificate is read from its files in any case: it may have been renewed in them. Returns the settings that are
    the last ones now: the old ones where those files are no good.
    """
    has_certificate = app.certificate is not None and bool(new.tls.certificate)
    try:
        if app.certificate is not None and has_certificate:
            app.certificate.load(Path(new.tls.certificate), Path(new.tls.key))
    except StartupError as exc:
        log.error("the settings have a mistake, and stay as they were", mistakes=[str(exc)])  # noqa: TRY400
        return old
    changed = changes(old, new)
    applied = RELOADED.keys() | ({"tls.certificate", "tls.key"} if has_certificate else set())
    for how in dict.fromkeys(RELOADED[name] for name in changed if name in RELOADED):
        how(app, new)
    log.info("read the settings again", changed=[name for name in changed if name in applied])
    waiting = [name for name in changed if name not in applied]
    if waiting:
        log.warning("changed settings count only after a restart", settings=waiting)
    return new


def changes(old: Settings, new: Settings) -> list[str]:
    """The settings that differ, by name; their values may be secret."""
    return [
        f"{section}.{key}"
        for section, values in new
        for key, value in values
        if value != getattr(getattr(old, section), key)
    ]
