from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer

from qiyu.errors import BadToken
from qiyu.protocol.packet import APP_ID, MAX_ID, MIN_ID
from qiyu.services.tokens import (
    MAX_USERS,
    TOKEN_CHARS,
    Identity,
    Tokens,
    parse_user_ids,
)

NOW = 1_750_000_000_000
SECRET = "a secret of the tests"
TOKENS = Tokens(SECRET, 300)
USER = 10_001
TOKEN = TOKENS.issue(USER, nickname="看客小鱼", avatar="/img/1.png", now_ms=NOW)
IDS = st.integers(MIN_ID, MAX_ID)


def verify(token: str, *, user_id: int = USER, app_id: int | None = None, now_ms: int = NOW) -> Identity:
    return TOKENS.verify(token, user_id=user_id, app_id=app_id, now_ms=now_ms)


def test_a_token_says_who_it_is_for() -> None:
    assert verify(TOKEN) == Identity(APP_ID, USER, "看客小鱼", "/img/1.png")


def test_the_app_of_the_packet_may_be_given_as_well() -> None:
    token = TOKENS.issue(USER, app_id=20_000, now_ms=NOW)
    assert token.endswith("%20000")
    assert verify(token, app_id=20_000).app_id == 20_000
    with pytest.raises(BadToken, match="for another app"):
        verify(token, app_id=APP_ID)


def test_it_is_safe_in_a_path() -> None:
    assert re.fullmatch(r"[A-Za-z0-9._-]+%10001", TOKEN)


def test_another_user() -> None:
    with pytest.raises(BadToken, match="for another user"):
        verify(TOKEN, user_id=USER + 1)


@pytest.mark.parametrize("user_id", [-1, 0, MIN_ID - 1, MAX_ID + 1, 2**64])
def test_an_id_out_of_range_is_nobodys(user_id: int) -> None:
    with pytest.raises(BadToken):
        verify(TOKEN, user_id=user_id)
    with pytest.raises(BadToken):
        verify(TOKEN, app_id=user_id)


def test_it_lasts_its_lifetime_and_no_millisecond_longer() -> None:
    assert verify(TOKEN, now_ms=NOW + 299_999).user_id == USER
    with pytest.raises(BadToken, match="expired"):
        verify(TOKEN, now_ms=NOW + 300_000)


def test_another_secret() -> None:
    with pytest.raises(BadToken, match="signature"):
        Tokens("another secret of the tests", 300).verify(TOKEN, user_id=USER, app_id=None, now_ms=NOW)


def test_another_app_in_the_open_part() -> None:
    with pytest.raises(BadToken, match="for another app"):
        verify(TOKEN.replace("%10001", "%10002"))


@pytest.mark.parametrize(
    "token",
    [
        "",
        "%",
        "%10001",
        "hello",
        TOKEN.replace("%10001", ""),
        TOKEN.replace("%10001", "%010001"),
        TOKEN.replace("%10001", "%+10001"),
        TOKEN.replace("%10001", "%１０００１"),
        TOKEN.replace("%10001", "%" + "9" * 17),
        f" {TOKEN}",
        f"{TOKEN}\n",
        f"{TOKEN} ",
        f"{TOKEN}%10001",
        "." + TOKEN,
        TOKEN.replace("%", "=%"),
        TOKEN.replace("%", "!%"),
        "a" * TOKEN_CHARS + TOKEN,
        "\ud800" + TOKEN,
        "\x00",
    ],
)
def test_malformed(token: str) -> None:
    with pytest.raises(BadToken, match="malformed"):
        verify(token)


@pytest.mark.parametrize(
    "claims",
    [
        None,
        [],
        "text",
        {},
        {"a": APP_ID, "u": USER},
        {"a": APP_ID, "u": str(USER), "x": NOW * 2},
        {"a": APP_ID, "u": 9_999, "x": NOW * 2},
        {"a": APP_ID, "u": MAX_ID + 1, "x": NOW * 2},
        {"a": APP_ID, "u": USER, "x": 1e300},
        {"a": APP_ID, "u": USER, "x": NOW * 2, "n": None},
        {"a": APP_ID, "u": USER, "x": NOW * 2, "admin": True},
    ],
)
def test_signed_but_of_another_shape(claims: object) -> None:
    signer = URLSafeSerializer(
        SECRET,
        salt="qiyu.login-token",
        signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
    )
    with pytest.raises(BadToken, match="another version"):
        verify(f"{signer.dumps(claims)}%10001")


def test_no_reason_repeats_the_token_or_the_secret() -> None:
    for token, user_id, now_ms in (
        (TOKEN, USER + 1, NOW),
        (TOKEN, USER, NOW * 2),
        (TOKEN[:-1], USER, NOW),
        ("." + TOKEN[2:], USER, NOW),
    ):
        with pytest.raises(BadToken) as caught:
            verify(token, user_id=user_id, now_ms=now_ms)
        assert TOKEN[5:25] not in str(caught.value)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("number", [-1, 0, MIN_ID - 1, MAX_ID + 1])
def test_ids_out_of_range_get_no_token(number: int) -> None:
    with pytest.raises(ValueError, match=f"userId {number}: expected 10000 to 9007199254740991"):
        TOKENS.issue(number, now_ms=NOW)
    with pytest.raises(ValueError, match="appId"):
        TOKENS.issue(USER, app_id=number, now_ms=NOW)


def test_texts_too_long_for_a_token() -> None:
    with pytest.raises(ValueError, match="over 2048"):
        TOKENS.issue(USER, avatar="".join(chr(0x4E00 + i) for i in range(1000)), now_ms=NOW)


def test_text_that_is_not_unicode() -> None:
    with pytest.raises(ValueError, match="surrogate"):
        TOKENS.issue(USER, nickname="\ud800", now_ms=NOW)


def test_no_tokens_without_a_secret_or_a_lifetime() -> None:
    with pytest.raises(ValueError, match="secret is empty"):
        Tokens("", 300)
    with pytest.raises(ValueError, match="lifetime_seconds = 0"):
        Tokens(SECRET, 0)


@pytest.mark.property
@given(
    user_id=IDS,
    app_id=IDS,
    nickname=st.text(max_size=100),
    avatar=st.text(max_size=100),
    now_ms=st.integers(0, 2**53),
)
def test_round_trip(user_id: int, app_id: int, nickname: str, avatar: str, now_ms: int) -> None:
    """Whatever is put into a token comes out of it, for as long as it lives."""
    token = TOKENS.issue(user_id, app_id=app_id, nickname=nickname, avatar=avatar, now_ms=now_ms)
    identity = Identity(app_id, user_id, nickname, avatar)
    assert TOKENS.verify(token, user_id=user_id, app_id=None, now_ms=now_ms) == identity
    assert TOKENS.verify(token, user_id=user_id, app_id=app_id, now_ms=now_ms + 299_999) == identity


@pytest.mark.property
@given(st.data())
def test_no_mutation_of_a_token_is_accepted(data: st.DataObject) -> None:
    """A token has one spelling: with anything replaced, removed or inserted it is refused."""
    start = data.draw(st.integers(0, len(TOKEN)))
    end = data.draw(st.integers(start, min(start + 3, len(TOKEN))))
    alphabet = st.one_of(st.sampled_from(sorted({*TOKEN, *"=+/! \n"})), st.characters())
    token = TOKEN[:start] + data.draw(st.text(alphabet, max_size=3)) + TOKEN[end:]
    assume(token != TOKEN)
    with pytest.raises(BadToken):
        verify(token)


def test_no_single_character_can_be_exchanged() -> None:
    for position in range(len(TOKEN)):
        for char in "ABCDwxyz0189-_.%=":
            token = TOKEN[:position] + char + TOKEN[position + 1 :]
            if token != TOKEN:
                with pytest.raises(BadToken):
                    verify(token)


@pytest.mark.property
@given(
    token=st.one_of(st.text(), st.from_regex(r"\A\.?[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}%[0-9]{5,16}\Z")),
    user_id=st.integers(),
    app_id=st.one_of(st.none(), st.integers()),
)
def test_anything_else_is_a_bad_token(token: str, user_id: int, app_id: int | None) -> None:
    """No text raises anything but BadToken, and none that was not issued is accepted."""
    with pytest.raises(BadToken):
        verify(token, user_id=user_id, app_id=app_id)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("10000", range(10_000, 10_001)),
        ("10000-10499", range(10_000, 10_500)),
        ("10007-10007", range(10_007, 10_008)),
        (str(MAX_ID), range(MAX_ID, MAX_ID + 1)),
        (f"10000-{10_000 + MAX_USERS - 1}", range(10_000, 10_000 + MAX_USERS)),
    ],
)
def test_user_ids(text: str, ids: range) -> None:
    assert parse_user_ids(text) == ids


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a user id such as 10000"),
        ("abc", "a user id such as 10000"),
        ("-10000", "a user id such as 10000"),
        ("10000-", "a user id such as 10000"),
        ("10000-10001-10002", "a user id such as 10000"),
        (" 10000", "a user id such as 10000"),
        ("10_000", "a user id such as 10000"),
        ("１００００", "a user id such as 10000"),
        ("10000\n", "a user id such as 10000"),
        ("9" * 17, "a user id such as 10000"),
        ("9999", "user ids from 10000 to 9007199254740991"),
        ("9007199254740992", "user ids from 10000 to 9007199254740991"),
        ("10500-10000", "the smaller one first"),
        ("10000-1010000", "at most 1000000"),
    ],
)
def test_what_names_no_user_ids(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as caught:
        parse_user_ids(text)
    assert repr(text) in str(caught.value)
