"""Which secret is good enough for how a server is reached."""

from __future__ import annotations

import ipaddress

from qiyu.config.loading import CONFIG_FILE, ENV_PREFIX
from qiyu.config.printing import toml
from qiyu.config.settings import Settings
from qiyu.config.types import hosts_of
from qiyu.errors import ConfigError


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`: 127.0.0.0/8, ::1 or localhost."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, which may mean any machine


def require_safe_secret(settings: Settings) -> None:
    """Raise ConfigError where a secret made by this instance, in its own data folder, would not do."""
    _require_shared(settings)
    if settings.auth.secret.get_secret_value():
        return
    hosts = {"tcp.host": settings.tcp.host, "ws.host": settings.ws.host, "http.host": settings.http.host}
    if settings.rtmp.port:
        hosts["rtmp.host"] = settings.rtmp.host
    if settings.admin.port:
        hosts["admin.host"] = settings.admin.host
    reachable = [f"{name} = {toml(host)}" for name, host in hosts.items() if not all(map(is_loopback, hosts_of(host)))]
    if settings.redis.url.get_secret_value():
        why = "redis.url is set, and several instances can only check each other's login tokens with one secret"
    elif reachable:
        why = (
            f"other machines can reach {' and '.join(reachable)}, and a server for others needs a secret "
            "that is kept apart from its data folder"
        )
    else:
        return
    raise ConfigError(
        f"auth.secret is empty, but {why}. Make one with\n"
        '  python3 -c "import secrets; print(secrets.token_urlsafe(32))"\n'
        f"and set it as [auth] secret in {CONFIG_FILE}, or as {ENV_PREFIX}AUTH__SECRET."
    )


def _require_shared(settings: Settings) -> None:
    """What several instances must have in common, and what only they can use."""
    if not settings.redis.url.get_secret_value():
        return
    database = settings.database.url.get_secret_value()
    if not database or database.startswith("sqlite"):
        raise ConfigError(
            "redis.url is set, but database.url is not that of a database server: several instances share one; "
            "expected postgresql:// or mysql://"
        )
    if not settings.cluster.secret.get_secret_value():
        raise ConfigError(
            "redis.url is set, but cluster.secret is empty: instances prove to each other that they know it. "
            "Make one with\n"
            '  python3 -c "import secrets; print(secrets.token_urlsafe(32))"\n'
            f"and set it as [cluster] secret in {CONFIG_FILE} of each, or as {ENV_PREFIX}CLUSTER__SECRET."
        )
    every = [host for host in hosts_of(settings.cluster.host) if host in {"0.0.0.0", "::"}]  # noqa: S104
    if every and not settings.cluster.public_address:
        raise ConfigError(
            f"cluster.host = {toml(settings.cluster.host)} is every address of this machine, and "
            "cluster.public_address is empty: expected the host:port at which other instances reach this one"
        )
