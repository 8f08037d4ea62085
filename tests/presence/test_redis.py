"""What is Redis's own: that it goes away, forgets, hangs, is somebody else's, or many nodes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from presence.test_presence import ANNA, BERT, ONE, ask, find, pin, renew
from qiyu.errors import ConfigError, PresenceUnavailable
from qiyu.presence.presence import FindPins, Lease, Leases, ListLeases, Pin, PinUser, User
from qiyu.presence.redis import BUCKETS, RedisPresence
from redis_servers import RedisServer, redis_server

MINE = Pin(ONE, 5, 1_000)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def presence(server: RedisServer) -> Iterator[RedisPresence]:
    presence = RedisPresence(server.url, timeout_seconds=10)
    yield presence
    presence.close()


def epoch(presence: RedisPresence) -> str:
    leases = ask(presence, ListLeases())
    assert isinstance(leases, Leases), leases
    return leases.epoch


@pytest.mark.parametrize(
    "url",
    ["redis://127.0.0.1:port", "http://127.0.0.1/", "redis://localhost/0?nonsense=1", "redis://localhost/?db=x"],
)
def test_a_url_that_is_none_is_an_error_of_the_configuration(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^redis\.url: "):
        RedisPresence(url)


def test_valkey_has_urls_of_its_own(server: RedisServer) -> None:
    presence = RedisPresence(server.url.replace("redis:", "valkey:"))
    assert find(presence, ANNA) == [None]
    presence.close()


def test_nobody_there_is_an_answer_that_names_the_place_and_no_password(tmp_path: Path) -> None:
    presence = RedisPresence("redis://:sesame@127.0.0.1:1/0", timeout_seconds=5)
    first, second = presence.execute([ListLeases(), FindPins((ANNA,))])
    assert isinstance(first, PresenceUnavailable)
    assert isinstance(second, PresenceUnavailable)
    assert "127.0.0.1:1" in str(first)
    assert "sesame" not in str(first) + repr(presence)


def test_a_wrong_password_is_said(server: RedisServer) -> None:
    server.client.config_set("requirepass", "open sesame")
    presence = RedisPresence(server.url.replace("//", "//:sesame@"))
    answer = ask(presence, ListLeases())
    assert isinstance(answer, PresenceUnavailable)
    assert "invalid username-password pair" in str(answer)
    assert "sesame" not in str(answer)
    presence.close()


def test_restarted_it_answers_again_in_another_epoch(server: RedisServer, presence: RedisPresence) -> None:
    before = renew(presence, Lease(number=1, incarnation=1)).epoch
    pin(presence, ANNA, MINE)
    server.stop()
    answers = presence.execute([FindPins((ANNA,)), PinUser(BERT, MINE, is_fresh=True)])
    assert all(isinstance(answer, PresenceUnavailable) for answer in answers)
    server.start()
    assert find(presence, ANNA) == [None]
    assert epoch(presence) != before


def test_emptied_it_is_another_epoch(server: RedisServer, presence: RedisPresence) -> None:
    before = epoch(presence)
    server.client.flushall()
    after = epoch(presence)
    assert after != before
    assert epoch(presence) == after


def test_two_see_the_same_epoch(server: RedisServer, presence: RedisPresence) -> None:
    other = RedisPresence(server.url)
    assert epoch(other) == epoch(presence)
    other.close()


def test_a_hanging_one_is_not_waited_for_long(server: RedisServer) -> None:
    presence = RedisPresence(server.url, timeout_seconds=0.2)
    assert find(presence, ANNA) == [None]
    os.kill(server.pid, signal.SIGSTOP)
    try:
        assert isinstance(ask(presence, FindPins((ANNA,))), PresenceUnavailable)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert find(presence, ANNA) == [None]  # and no late reply is taken for the answer
    presence.close()


def test_read_only_it_still_finds(server: RedisServer, presence: RedisPresence) -> None:
    pin(presence, ANNA, MINE)
    server.client.config_set("min-replicas-to-write", 1)
    answers = presence.execute([PinUser(BERT, MINE, is_fresh=True), FindPins((ANNA, BERT))])
    assert isinstance(answers[0], PresenceUnavailable)
    assert answers[1] == [MINE, None]


def test_what_somebody_else_wrote_into_its_keys_is_an_error_and_no_crash(
    server: RedisServer, presence: RedisPresence
) -> None:
    server.client.set(f"qiyu:pins:{ANNA.user_id % BUCKETS}", "a string")
    server.client.hset(f"qiyu:pins:{BERT.user_id % BUCKETS}", f"{BERT.app_id}:{BERT.user_id}", "no pin")
    server.client.hset("qiyu:leases", "7", "no lease")
    for request in (FindPins((ANNA,)), PinUser(ANNA, MINE, is_fresh=True), FindPins((BERT,)), ListLeases()):
        assert isinstance(ask(presence, request), PresenceUnavailable)
    assert isinstance(ask(presence, PinUser(BERT, MINE, is_fresh=True)), PresenceUnavailable)
    assert find(presence, User(10_001, 20_003)) == [None]


def test_a_prefix_keeps_two_installations_apart(server: RedisServer, presence: RedisPresence) -> None:
    other = RedisPresence(server.url, prefix="other")
    pin(presence, ANNA, MINE)
    assert find(other, ANNA) == [None]
    other.close()


def test_one_call_is_one_round_trip_and_one_command_a_request(server: RedisServer, presence: RedisPresence) -> None:
    find(presence, ANNA)  # connects
    server.client.config_resetstat()
    requests = [PinUser(User(10_001, 10_000 + n), MINE, is_fresh=True) for n in range(100)]
    presence.execute([*requests, FindPins((ANNA, BERT))])
    stats = server.client.info("commandstats")
    assert stats["cmdstat_eval"]["calls"] == 100
    assert stats["cmdstat_hmget"]["calls"] == 2


class TestCluster:
    def test_pins_are_spread_over_all_nodes(self, cluster: list[RedisServer]) -> None:
        presence = RedisPresence(cluster[1].url, prefix="spread", timeout_seconds=10)
        users = tuple(User(10_001, 10_000 + n) for n in range(BUCKETS))
        presence.execute([PinUser(user, MINE, is_fresh=True) for user in users])
        assert find(presence, *users) == [MINE] * BUCKETS
        kept = [len(server.client.keys("spread:pins:*")) for server in cluster]
        assert sum(kept) == BUCKETS
        assert min(kept) > BUCKETS // 10
        presence.close()

    def test_one_node_emptied_is_another_epoch(self, cluster: list[RedisServer]) -> None:
        presence = RedisPresence(cluster[0].url, prefix="emptied", timeout_seconds=10)
        seen = {epoch(presence)}
        for n, server in enumerate(cluster):
            server.client.flushall()
            seen.add(epoch(presence))
            assert len(seen) == n + 2
        presence.close()

    def test_slots_that_move_are_followed(self, cluster: list[RedisServer]) -> None:
        presence = RedisPresence(cluster[0].url, prefix="moved", timeout_seconds=10)
        pin(presence, ANNA, MINE)
        slot = cluster[0].client.cluster("KEYSLOT", f"moved:pins:{ANNA.user_id % BUCKETS}")
        key = f"moved:pins:{ANNA.user_id % BUCKETS}"
        ids = [str(server.client.execute_command("CLUSTER MYID"), "ascii") for server in cluster]
        counts = [server.client.execute_command("CLUSTER COUNTKEYSINSLOT", slot) for server in cluster]
        source = next(n for n, count in enumerate(counts) if count)
        target = (source + 1) % len(cluster)
        cluster[target].client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[source])
        cluster[source].client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[target])
        cluster[source].client.execute_command("MIGRATE", "127.0.0.1", cluster[target].port, key, 0, 5000)
        assert find(presence, ANNA, BERT) == [MINE, None]  # while it moves
        for server in (cluster[target], cluster[source]):
            server.client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[target])
        assert find(presence, ANNA, BERT) == [MINE, None]
        assert pin(presence, ANNA, MINE._replace(session=6)).stood == MINE
        presence.close()

    def test_a_node_that_is_away_leaves_the_others_at_work(self, cluster: list[RedisServer]) -> None:
        presence = RedisPresence(cluster[0].url, prefix="away", timeout_seconds=0.5)
        users = tuple(User(10_001, 10_000 + n) for n in range(BUCKETS))
        for server in cluster:
            server.client.config_set("cluster-require-full-coverage", "no")
        presence.execute([PinUser(user, MINE, is_fresh=True) for user in users])
        os.kill(cluster[2].pid, signal.SIGSTOP)
        try:
            answers = presence.execute([FindPins((user,)) for user in users])
        finally:
            os.kill(cluster[2].pid, signal.SIGCONT)
        away = [answer for answer in answers if isinstance(answer, PresenceUnavailable)]
        assert 0 < len(away) < BUCKETS
        assert [answer for answer in answers if answer == [MINE]] == [[MINE]] * (BUCKETS - len(away))
        assert find(presence, *users) == [MINE] * BUCKETS
        presence.close()


def test_the_client_is_not_left_to_try_again_by_itself(server: RedisServer) -> None:
    """Else a call would take several times its timeout."""
    presence = RedisPresence(server.url)
    assert isinstance(presence._alone, redis.Redis)
    assert presence._alone.connection_pool.connection_kwargs["retry"].get_retries() == 0
