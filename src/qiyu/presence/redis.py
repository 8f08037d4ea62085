"""Presence in Redis 6.2 or newer, Valkey, or a Redis Cluster of either.

Keys, each command with one of them, so that a Redis Cluster can spread them:

    qiyu:leases           a hash: instance number -> "incarnation written_ms lease as JSON"
    qiyu:pins:0 .. :255   256 hashes, a user in the one of its id modulo 256:
                          "appId:userId" -> "number:incarnation:session:login_ms"
    qiyu:marker:N         a random text, one on each node, gone when that node was emptied

A request is one command, and all requests of a call go out in one pipeline (one for each node of a cluster). Scripts
compare and write, so that two instances cannot come between one another.

Redis is restarted when a node says another run_id, and emptied when it has lost its marker: both are in the epoch.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisError,
)
from redis.retry import Retry

from qiyu.errors import ConfigError, PresenceUnavailable
from qiyu.model import InstanceId
from qiyu.presence.presence import (
    Answer,
    DropLease,
    FindPins,
    Lease,
    Leases,
    ListLeases,
    Pin,
    Pinned,
    PinUser,
    RenewLease,
    Request,
    Unpin,
    User,
)

BUCKETS: Final = 256
MARKERS: Final = 4096
"""Names of markers that are tried until each node of a cluster has one."""

# Numbers are compared as Lua's doubles, exact up to 2^53: milliseconds and counters stay far below.
_PIN: Final = """
local number, incarnation, session = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local login, fresh = tonumber(ARGV[5]), ARGV[6] == '1'
local function is_newer(n, i, s, l)
  if l ~= login then return l > login end
  if n ~= number then return n > number end
  if i ~= incarnation then return i > incarnation end
  return s > session
end
local stood = redis.call('HGET', KEYS[1], ARGV[1])
if stood then
  local n, i, s, l = string.match(stood, '^(%d+):(%d+):(%d+):(%d+)$')
  n, i, s, l = tonumber(n), tonumber(i), tonumber(s), tonumber(l)
  if n == number and i == incarnation and s == session then return {1, stood, false} end
  if fresh then
    if l >= login then login = l + 1 end
  elseif is_newer(n, i, s, l) then
    return {0, stood, false}
  end
end
local pin = string.format('%.0f:%.0f:%.0f:%.0f', number, incarnation, session, login)
redis.call('HSET', KEYS[1], ARGV[1], pin)
return {1, pin, stood}
"""
_UNPIN: Final = """
local stood = redis.call('HGET', KEYS[1], ARGV[1])
if not stood or string.sub(stood, 1, #ARGV[2]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""
_RENEW: Final = """
local time = redis.call('TIME')
local now = time[1] .. string.format('%03d', math.floor(time[2] / 1000))
local stood = redis.call('HGET', KEYS[1], ARGV[1])
local mine = not stood or tonumber(string.match(stood, '^%d+')) <= tonumber(ARGV[2])
if mine then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. now .. ' ' .. ARGV[3]) end
return {mine and 1 or 0, now, redis.call('HGETALL', KEYS[1])}
"""
_LIST: Final = """
local time = redis.call('TIME')
return {0, time[1] .. string.format('%03d', math.floor(time[2] / 1000)), redis.call('HGETALL', KEYS[1])}
"""
_DROP: Final = """
local stood = redis.call('HGET', KEYS[1], ARGV[1])
if not stood or string.match(stood, '^%d+') ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""


class _Command(NamedTuple):
    key: str
    words: tuple[str | int, ...]


@dataclass(eq=False, slots=True)
class _Asked:
    """A request as commands, and how their replies become its answer."""

    commands: list[_Command]
    answer: Callable[[list[Any]], Answer]
    needs_epoch: bool = False
    replies: list[Any] = field(default_factory=list)


class RedisPresence:
    """Blocks: call it in a thread, one call at a time, where `timeout_seconds` bounds each wait for a node.

    `url` is redis://, rediss:// or unix://, as of redis-py, or valkey://. Whether it leads to a cluster it asks.
    `prefix` stands in front of all keys. Raises ConfigError where the URL is none.
    """

    def __init__(self, url: str, *, prefix: str = "qiyu", timeout_seconds: float = 1.0) -> None:
        self._url = url.replace("valkey", "redis", 1) if url.startswith("valkey") else url
        self._prefix = prefix
        self._options: dict[str, Any] = {
            "socket_timeout": timeout_seconds,
            "socket_connect_timeout": timeout_seconds,
            "retry": Retry(NoBackoff(), 0),  # whoever asks knows better whether and when to ask again
        }
        self._alone = self._parse()
        self._cluster: RedisCluster | None = None
        self._is_known = False
        """Whether it is a cluster."""
        self._pins = [f"{prefix}:pins:{bucket}" for bucket in range(BUCKETS)]
        self._leases = f"{prefix}:leases"
        self._markers: dict[str, str] = {}
        """The key of the marker of each node, by the node's name."""

    def __repr__(self) -> str:
        return f"<RedisPresence {self._where()}{' cluster' if self._cluster else ''}>"

    def execute(self, requests: Sequence[Request], /) -> list[Answer | PresenceUnavailable]:
        """See `Presence.execute`."""
        if not requests:
            return []
        asked = [self._ask(request) for request in requests]
        try:
            self._find_out()
            epoch = self._epoch() if any(one.needs_epoch for one in asked) else ""
            self._send(asked)
        except (RedisError, OSError) as exc:
            unavailable = self._translated(exc)
            return [unavailable] * len(asked)
        return [self._answer(one, epoch) for one in asked]

    def close(self) -> None:
        """See `Presence.close`."""
        self._alone.close()
        if self._cluster is not None:
            self._cluster.close()

    # What is asked

    def _ask(self, request: Request) -> _Asked:
        match request:
            case PinUser(user, pin, is_fresh):
                mine = (*pin.instance, pin.session, pin.login_ms, int(is_fresh))
                return _Asked([self._script(_PIN, self._bucket(user), _field(user), *mine)], _pinned)
            case Unpin(user, pin):
                begins = f"{pin.instance.number}:{pin.instance.incarnation}:{pin.session}:"
                return _Asked([self._script(_UNPIN, self._bucket(user), _field(user), begins)], _as_bool)
            case FindPins(users):
                return self._find_pins(users)
            case RenewLease(lease):
                written = (*lease.instance, msgspec.json.encode(lease).decode())
                return _Asked([self._script(_RENEW, self._leases, *written)], _leases, needs_epoch=True)
            case ListLeases():
                return _Asked([self._script(_LIST, self._leases)], _leases, needs_epoch=True)
            case DropLease(instance):
                return _Asked([self._script(_DROP, self._leases, *instance)], _as_bool)

    def _find_pins(self, users: tuple[User, ...]) -> _Asked:
        places: dict[str, list[int]] = defaultdict(list)
        for place, user in enumerate(users):
            places[self._bucket(user)].append(place)

        def answer(replies: list[Any]) -> list[Pin | None]:
            pins: list[Pin | None] = [None] * len(users)
            for found, at in zip(replies, places.values(), strict=True):
                for place, pin in zip(at, found, strict=True):
                    pins[place] = None if pin is None else _pin(pin)
            return pins

        commands = [
            _Command(key, ("HMGET", key, *(_field(users[place]) for place in at))) for key, at in places.items()
        ]
        return _Asked(commands, answer)

    def _bucket(self, user: User) -> str:
        return self._pins[user.user_id % BUCKETS]

    @staticmethod
    def _script(script: str, key: str, *words: str | int) -> _Command:
        # The whole script, not its hash: Redis compiles it once all the same, and may not know it after a restart.
        return _Command(key, ("EVAL", script, 1, key, *words))

    # What is answered

    def _answer(self, asked: _Asked, epoch: str) -> Answer | PresenceUnavailable:
        for reply in asked.replies:
            if isinstance(reply, Exception):
                return self._translated(reply)
        try:
            answer = asked.answer(asked.replies)
        except (ValueError, TypeError, IndexError, msgspec.MsgspecError) as exc:
            return PresenceUnavailable(f"{self._where()}: what stands in it is not qiyu's: {exc}")
        return answer._replace(epoch=epoch) if isinstance(answer, Leases) else answer

    def _translated(self, error: Exception) -> PresenceUnavailable:
        unavailable = PresenceUnavailable(f"{self._where()}: {error or type(error).__name__}")
        unavailable.__cause__ = error
        return unavailable

    # The way there

    def _parse(self) -> redis.Redis:
        try:
            alone = redis.Redis.from_url(self._url, **self._options)
            pool = alone.connection_pool
            pool.connection_class(**pool.connection_kwargs)  # does not connect; it knows which options there are
        except (ValueError, TypeError) as exc:
            raise ConfigError(f"redis.url: {exc}") from None
        return alone

    def _where(self) -> str:
        """Without the password."""
        options = self._alone.connection_pool.connection_kwargs
        return str(options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}")

    def _find_out(self) -> None:
        """Whether it is a cluster, asked once."""
        if self._is_known:
            return
        if int(_info(self._alone.execute_command("INFO", "cluster")).get("cluster_enabled", "0")):
            self._cluster = RedisCluster.from_url(self._url, **self._options)
        self._is_known = True

    def _nodes(self) -> dict[str, redis.Redis]:
        """Those that take writes."""
        if self._cluster is None:
            return {"": self._alone}
        return {node.name: self._cluster.get_redis_connection(node) for node in self._cluster.get_primaries()}

    def _node_of(self, key: str) -> str:
        if self._cluster is None:
            return ""
        return str(self._cluster.nodes_manager.get_node_from_slot(key_slot(key.encode())).name)

    def _send(self, asked: Iterable[_Asked]) -> None:
        """Each node what is its own, and then what has moved meanwhile to where it has moved."""
        by_node: dict[str, list[tuple[_Asked, int, _Command]]] = defaultdict(list)
        for one in asked:
            one.replies = [None] * len(one.commands)
            for place, command in enumerate(one.commands):
                by_node[self._node_of(command.key)].append((one, place, command))
        nodes = self._nodes()
        moved = False
        for name, items in by_node.items():
            node = nodes[name]
            pipeline = node.pipeline(transaction=False)
            for _, _, command in items:
                pipeline.execute_command(*command.words)
            try:
                replies = pipeline.execute(raise_on_error=False)
            except (RedisError, OSError) as exc:
                replies = [exc] * len(items)
                moved = True  # a replica may have taken its place
            for (one, place, command), reply in zip(items, replies, strict=True):
                if isinstance(reply, MovedError | AskError) and self._cluster is not None:
                    moved = True
                    one.replies[place] = self._follow(command)
                else:
                    one.replies[place] = reply
        if moved and self._cluster is not None:
            self._refresh(self._cluster)

    def _follow(self, command: _Command) -> Any:
        assert self._cluster is not None  # noqa: S101  # nothing moves elsewhere
        try:
            return self._cluster.execute_command(*command.words)
        except (RedisError, OSError) as exc:
            return exc

    @staticmethod
    def _refresh(cluster: RedisCluster) -> None:
        with suppress(RedisError, OSError):  # what was asked has its error already, and the next call finds out anew
            cluster.nodes_manager.initialize()

    def _epoch(self) -> str:
        """Of all nodes: which process it is, and whether it still has what was written."""
        nodes = self._nodes()
        parts = []
        for name in sorted(nodes):
            marker = self._marker_of(name)
            pipeline = nodes[name].pipeline(transaction=False)
            pipeline.execute_command("INFO", "server")
            pipeline.set(marker, secrets.token_hex(8), nx=True)
            pipeline.get(marker)
            info, _, text = pipeline.execute()
            parts.append(f"{_info(info)['run_id']}-{text.decode()}")
        return " ".join(parts)

    def _marker_of(self, node: str) -> str:
        marker = self._markers.get(node)
        if marker is None or self._node_of(marker) != node:  # its slot may have moved
            names = (f"{self._prefix}:marker:{n}" for n in range(MARKERS))
            marker = next((name for name in names if self._node_of(name) == node), None)
            if marker is None:
                raise ClusterDownError(f"the cluster's node {node} has next to no slots")
            self._markers[node] = marker
        return marker


def _field(user: User) -> str:
    return f"{user.app_id}:{user.user_id}"


def _pin(text: bytes) -> Pin:
    number, incarnation, session, login_ms = map(int, text.split(b":"))
    return Pin(InstanceId(number, incarnation), session, login_ms)


def _pinned(replies: list[Any]) -> Pinned:
    ((is_mine, pin, stood),) = replies
    return Pinned(_pin(pin), None if stood is None else _pin(stood), is_mine=bool(is_mine))


def _as_bool(replies: list[Any]) -> bool:
    (done,) = replies
    return bool(done)


def _leases(replies: list[Any]) -> Leases:
    ((is_mine, now, pairs),) = replies
    leases: dict[int, Lease] = {}
    ages: dict[int, int] = {}
    for text in pairs[1::2]:
        _, written, body = text.split(b" ", 2)
        lease = msgspec.json.decode(body, type=Lease)
        leases[lease.number] = lease
        ages[lease.number] = max(int(now) - int(written), 0)
    return Leases("", leases, ages, is_mine=bool(is_mine))


def _info(reply: Any) -> dict[str, str]:
    """An INFO, which redis-py has read already where it knows the command."""
    if isinstance(reply, dict):
        return {str(name): str(value) for name, value in reply.items()}
    lines = reply.decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
