from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.living.stream_keys import BadStreamKey, StreamKeys

DAY = 86_400
NOW = 1_764_000_000_000
KEYS = StreamKeys("the secret of the tests", DAY)


def test_a_key_names_its_room_and_is_good_for_a_day_at_least() -> None:
    key = KEYS.issue(7, NOW)
    assert re.fullmatch(r"7\?key=[0-9]+-[A-Za-z0-9_-]{43}", key)
    assert KEYS.verify(key, NOW) == 7
    assert KEYS.verify(key, NOW + DAY * 1000) == 7
    with pytest.raises(BadStreamKey, match="has expired"):
        KEYS.verify(key, NOW + 2 * DAY * 1000)


def test_it_is_the_same_all_day() -> None:
    midnight = NOW - NOW % (DAY * 1000)
    assert KEYS.issue(7, midnight) == KEYS.issue(7, midnight + DAY * 1000 - 1) != KEYS.issue(7, midnight + DAY * 1000)


@pytest.mark.property
@given(st.integers(1, 2**53 - 1), st.integers(0, 2 * DAY), st.integers(0, 63), st.characters(codec="ascii"))
def test_no_other_key_opens_a_room(room: int, later: int, at: int, other: str) -> None:
    """A key with any one character changed opens no room but by chance of one in 2**256, or names another."""
    key = KEYS.issue(room, NOW)
    changed = key[: at % len(key)] + other + key[at % len(key) + 1 :]
    if changed == key:
        assert KEYS.verify(changed, NOW) == room
        return
    with pytest.raises(BadStreamKey):
        KEYS.verify(changed, NOW + later * 1000)


@pytest.mark.property
@given(st.text(max_size=300))
def test_whatever_the_name_is_it_is_refused_with_a_reason(name: str) -> None:
    """No text raises anything else."""
    with pytest.raises(BadStreamKey):
        KEYS.verify(name, NOW)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "the stream key is malformed: expected ROOM?key=…, as the room's page shows it"),
        ("7?key=x", "the stream key is malformed: expected ROOM?key=…, as the room's page shows it"),
        ("9" * 16, "the stream key is malformed: expected ROOM?key=…, as the room's page shows it"),
        ("7", "the stream key has no key: expected ROOM?key=…, as the room's page shows it"),
        ("8" + KEYS.issue(7, NOW)[1:], "the stream key is wrong, or that of another room"),
        (StreamKeys("another secret!!", DAY).issue(7, NOW), "the stream key is wrong, or that of another room"),
    ],
)
def test_what_is_wrong_is_said(name: str, reason: str) -> None:
    with pytest.raises(BadStreamKey) as raised:
        KEYS.verify(name, NOW)
    assert str(raised.value) == reason


def test_other_parameters_beside_the_key_are_left() -> None:
    room, _, key = KEYS.issue(7, NOW).partition("?")
    assert KEYS.verify(f"{room}?vhost=a&{key}&b=c", NOW) == 7


def test_what_cannot_be_signed_with_is_refused() -> None:
    with pytest.raises(ValueError, match="the secret is empty"):
        StreamKeys("", DAY)
    with pytest.raises(ValueError, match="lifetime_seconds = 0"):
        StreamKeys("secret", 0)
