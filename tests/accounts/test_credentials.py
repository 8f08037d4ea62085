from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.accounts import credentials
from qiyu.services.tokens import TOKEN_CHARS, Tokens

LARGEST_ID = 2**53 - 1


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ann", "ann"),
        ("  Ann Lee ", "Ann Lee"),
        ("李雷", "李雷"),
        ("Ａnn", "Ann"),
        ("x" * 30, "x" * 30),
        ("o'neil-2.b", "o'neil-2.b"),
    ],
)
def test_names(text: str, name: str) -> None:
    assert credentials.account_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        " a ",
        "x" * 31,
        "a\nb",
        "a\0b",
        "ab\u202ec",
        "ann\u200b",
        "ann\u3164",
        "ann\ufe0f",
        "an\ud800",
        "x" * 9999,
        "ﷺﷺ",  # 18 letters each, once normalized
    ],
)
def test_what_cannot_be_a_name(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # it has no text: the words beside it say what is expected
        credentials.account_name(text)


@pytest.mark.parametrize("text", ["12345678", "  spaces ", "пароль-пароль", "🙂" * 128, "tab\tand\0nul"])
def test_passwords_may_be_anything(text: str) -> None:
    assert credentials.password(text) == text


def test_a_password_is_the_same_however_it_was_composed() -> None:
    assert credentials.password("cafe\u0301-cafe\u0301") == credentials.password("caf\u00e9-caf\u00e9")


@pytest.mark.parametrize("text", ["", "1234567", "x" * 129, "x" * 9999, "1234567\ud800"])
def test_what_cannot_be_a_password(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        credentials.password(text)


ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"


@pytest.mark.parametrize(
    "text", ["Ann", "李雷 🙂", "👩\u200d🚀 ❤\ufe0f", "x" * 35, "می\u200cخواهم", ENGLAND, f"Ann {ENGLAND}"]
)
def test_nick_names(text: str) -> None:
    assert credentials.nick_name(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "\u200d\u200d",
        "\u3164 \u3164",
        "a\u202eb",
        "a\nb",
        "a\0",
        "x" * 36,
        "\ud800",
        ENGLAND[1:],
        ENGLAND[:-1],
        "a\U000e0067",
    ],
)
def test_what_cannot_be_a_nick_name(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        credentials.nick_name(text)


@pytest.mark.parametrize(
    "text",
    ["", "/me.png", "/", "https://example.com/ä.png?size=3#x", "http://[::1]:8080/a", "https://例子.cn/图.png"],
)
def test_images(text: str) -> None:
    assert credentials.image(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "me.png",
        "//evil.example/a.png",
        "/\\evil.example/a.png",
        "javascript:alert(1)",
        "data:image/svg+xml,x",
        "https://",
        "https:///a.png",
        "https://[::1/a.png",
        "https://a b.example/",
        'https://a.example/"onload="x',
        "https://a.example/\u202e",
        "/" + "x" * 255,
    ],
)
def test_what_cannot_be_an_image(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        credentials.image(text)


def _accepted(check: Callable[[str], str], text: str) -> str:
    try:
        return check(text)
    except ValueError:
        return ""


@pytest.mark.property
@given(st.text(max_size=40), st.text(max_size=260))
def test_every_profile_fits_into_a_login_token(nick_name: str, path: str) -> None:
    """Invariant: what is accepted as nickname and avatar makes a token of at most TOKEN_CHARS characters."""
    nickname = _accepted(credentials.nick_name, nick_name)
    avatar = _accepted(credentials.image, f"/{path}")
    Tokens("a secret for tests alone", 300).issue(LARGEST_ID, nickname=nickname, avatar=avatar, now_ms=2**53)


def test_the_longest_profile_fits_into_a_login_token() -> None:
    # Every fourth byte of UTF-8 differs, so that deflating does not help.
    nick_name = "".join(chr(0x20000 + 977 * i % 40000) for i in range(35))
    avatar = "/" + "".join(chr(0x20000 + 1579 * i % 40000) for i in range(254))
    assert credentials.nick_name(nick_name) == nick_name
    assert credentials.image(avatar) == avatar
    token = Tokens("a secret for tests alone", 300).issue(
        LARGEST_ID, nickname=nick_name, avatar=avatar, http_session=2**60 - 1, now_ms=2**53
    )
    assert len(token) <= TOKEN_CHARS


@pytest.mark.property
@given(st.text(max_size=60))
def test_what_is_stored_would_be_accepted_again(text: str) -> None:
    """Invariant: each check is idempotent, so a name that is shown can be typed to log in."""
    for check in (credentials.account_name, credentials.password, credentials.nick_name, credentials.room_name):
        once = _accepted(check, text)
        assert not once or check(once) == once
