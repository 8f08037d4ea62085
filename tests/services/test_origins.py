from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.services.origins import Origins, is_same

LOCAL = ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"]


@pytest.mark.parametrize("page", LOCAL)
@pytest.mark.parametrize("called", [*LOCAL, "LocalHost", "localhost:8086", "[::1]:1"])
def test_neighbours_on_this_machine(page: str, called: str) -> None:
    for origin in (f"http://{page}", f"https://{page}:3000"):
        assert Origins().let(origin, called)
        assert not Origins(["https://a.example"]).are_neighbours(origin, called)


@pytest.mark.parametrize(
    "origin", ["null", "", "ftp://localhost", "http://localhost.example", "http://localhost:", "*"]
)
def test_what_is_no_page_of_this_machine(origin: str) -> None:
    assert not Origins().let(origin, "localhost:8086")


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("https://a.example", "a.example", True),
        ("https://a.example", "A.example:443", True),
        ("http://a.example", "a.example:80", True),
        ("http://a.example", "a.example:443", False),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("http://[::1]", "[::1]:8080", False),
        ("null", "null", False),
        ("://", "", False),
        ("", "", False),
    ],
)
def test_just_where_it_came_from(origin: str, host: str, same: bool) -> None:
    assert is_same(origin, host) is same


@pytest.mark.property
@given(st.text(max_size=30), st.text(max_size=30))
def test_a_list_is_all_there_is_beside_the_host_itself(origin: str, host: str) -> None:
    """With a list, whoever is not on it comes only from the host that it calls; `*` lets everybody in."""
    origins = Origins(["https://a.example"])
    assert origins.let(origin, host) is (origin == "https://a.example" or is_same(origin, host))
    assert Origins(["*"]).any
    assert not Origins(["*"]).lists("*")


def test_a_list_may_change() -> None:
    origins = Origins()
    origins.listed = frozenset(["https://a.example"])
    assert origins.let("https://a.example", "b.example")
