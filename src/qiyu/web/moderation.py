"""/living: what the anchor of a room does about those who are in it."""

from __future__ import annotations

from quart import Blueprint

from qiyu.errors import CallRefused
from qiyu.living.restrictions import UNTIL_CLOSED
from qiyu.storage.users import User
from qiyu.web.calls import logged_in
from qiyu.web.context import context
from qiyu.web.params import Params, RoomId, Seconds, UserId
from qiyu.web.responses import ResponseData

DEFAULT_SECONDS = 600

moderation = Blueprint("moderation", __name__, url_prefix="/living")


class OneMember(Params):
    """What the calls take that lift something."""

    room_id: RoomId
    user_id: UserId


class Term(OneMember):
    """What the calls take that last; `seconds` 0 is as long as the room is open."""

    seconds: Seconds = DEFAULT_SECONDS


class OneRoom(Params):
    """What restricted takes."""

    room_id: RoomId


class RestrictedUser(ResponseData):
    """Somebody who is muted or removed: until when, in milliseconds since 1970; 0 not at all, -1 till it is closed."""

    user_id: int
    nick_name: str | None
    muted_until: int
    removed_until: int


class RestrictedUsers(ResponseData):
    """All of a room, by user id."""

    list: list[RestrictedUser]


@moderation.post("/mute")
@logged_in(Term)
async def mute(asked: Term, user: User) -> None:
    """Have somebody not chat in one's own room for a while."""
    ctx = context()
    await ctx.moderation.mute(user.id, asked.room_id, asked.user_id, asked.seconds, ctx.clock())


@moderation.post("/unmute")
@logged_in(OneMember)
async def unmute(asked: OneMember, user: User) -> None:
    """Let somebody chat again."""
    ctx = context()
    await ctx.moderation.unmute(user.id, asked.room_id, asked.user_id, ctx.clock())


@moderation.post("/remove")
@logged_in(Term)
async def remove(asked: Term, user: User) -> None:
    """Take somebody out of one's own room, and let them not enter for a while."""
    ctx = context()
    await ctx.moderation.remove(user.id, asked.room_id, asked.user_id, asked.seconds, ctx.clock())


@moderation.post("/readmit")
@logged_in(OneMember)
async def readmit(asked: OneMember, user: User) -> None:
    """Let somebody enter again who was removed."""
    ctx = context()
    await ctx.moderation.readmit(user.id, asked.room_id, asked.user_id, ctx.clock())


@moderation.post("/restricted")
@logged_in(OneRoom, RestrictedUsers)
async def restricted(asked: OneRoom, user: User) -> RestrictedUsers:
    """Who is muted in one's own room or removed from it."""
    ctx = context()
    room = await ctx.living_rooms.find(asked.room_id, ctx.clock())
    if room is None:
        raise CallRefused(404, f"roomId = {asked.room_id}: there is no such open room")
    if room.anchor_id != user.id:
        raise CallRefused(403, f"roomId = {asked.room_id}: only its anchor may do this")
    found = ctx.restrictions.of_room(asked.room_id, ctx.clock())
    users = await ctx.accounts.batch([each.user_id for each in found])
    return RestrictedUsers(
        list=[
            RestrictedUser(
                user_id=each.user_id,
                nick_name=users[each.user_id].nick_name if each.user_id in users else None,
                muted_until=_shown(each.muted_until),
                removed_until=_shown(each.removed_until),
            )
            for each in found
        ]
    )


def _shown(until_ms: int) -> int:
    return -1 if until_ms == UNTIL_CLOSED else until_ms
