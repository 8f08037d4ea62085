"""The three kinds of presence.

A test that asks for `presence` runs in memory, on a Redis and on a Redis Cluster of three, which are processes of the
tests' own; for the one Redis TEST_REDIS_URL may name another, where only keys of the tests' own are written.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from qiyu.presence.memory import MemoryPresence
from qiyu.presence.presence import Presence
from qiyu.presence.redis import RedisPresence
from redis_servers import RedisServer, redis_cluster, redis_server


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if "TEST_REDIS_URL" in os.environ:
        yield os.environ["TEST_REDIS_URL"]
        return
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture(params=["memory", "redis", "cluster"])
def presence(request: pytest.FixtureRequest) -> Iterator[Presence]:
    if request.param == "memory":
        yield MemoryPresence()
        return
    if request.param == "redis":
        url = request.getfixturevalue("server_url")
    else:
        url = request.getfixturevalue("cluster")[0].url
    made = RedisPresence(url, prefix=f"qiyu-test-{uuid.uuid4().hex}", timeout_seconds=10)
    yield made
    made.close()
