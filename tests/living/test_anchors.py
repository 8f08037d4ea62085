from __future__ import annotations

from qiyu.living.anchors import default_cover, default_room_name, may_go_live
from qiyu.storage.users import VIP, User


def user(*tags: str, avatar: str = "") -> User:
    return User(10_007, "ann", "Ann", avatar, "", frozenset(tags))


def test_only_a_vip_may_go_live() -> None:
    assert may_go_live(user(VIP))
    assert may_go_live(user("other", VIP))
    assert not may_go_live(user())
    assert not may_go_live(user("VIP "))


def test_what_a_room_is_called_and_shows_by_default() -> None:
    assert default_room_name(user()) == "主播-10007的直播间"
    assert default_cover(user(avatar="/ann.png")) == "/ann.png"
    assert default_cover(user()) == ""
