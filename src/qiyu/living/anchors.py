"""Anchors: who may go live, and what a room is called and shows where its anchor does not say."""

from __future__ import annotations

from qiyu.storage.users import VIP, User


def may_go_live(user: User) -> bool:
    """Whether the user may open a living room."""
    return VIP in user.tags


def default_room_name(anchor: User) -> str:
    """The title of the room of an anchor who gives it none."""
    return f"主播-{anchor.id}的直播间"


def default_cover(anchor: User) -> str:
    """The picture of the room of an anchor who gives it none: their own, or "" where they have none either."""
    return anchor.avatar
