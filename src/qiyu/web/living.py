"""/living: going live, and the rooms where somebody is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from quart import Blueprint

from qiyu.storage.users import User
from qiyu.web.calls import Caller, anyone, logged_in
from qiyu.web.context import context
from qiyu.web.images import DEFAULT_AVATAR, DEFAULT_BACKGROUND
from qiyu.web.params import Image, Page, PageSize, Params, RoomId, RoomName, RoomType
from qiyu.web.responses import ResponseData
from qiyu.web.video import play_url, push_url, stream_key

if TYPE_CHECKING:
    from qiyu.storage.living_rooms import LivingRoom

NO_ROOM: Final = -1

living = Blueprint("living", __name__, url_prefix="/living")


class Start(Params):
    """What startingLiving takes."""

    type: RoomType
    room_name: RoomName = ""
    covert_img: Image = ""


class OneRoom(Params):
    """What the calls about one room take."""

    room_id: RoomId


class PageOfRooms(Params):
    """What list takes."""

    type: RoomType
    page: Page
    page_size: PageSize


class Started(ResponseData):
    """The room that is open now."""

    room_id: int


class AnchorConfig(ResponseData):
    """A room as its page needs it; `roomId` is -1 where there is none, or nobody is logged in.

    `isAnchor` and `anchor` are the same. `pushUrl` and `streamKey` are for the anchor alone; `userId`, `nickName` and
    the watcher's fields are about the caller.
    """

    room_id: int = NO_ROOM
    anchor_id: int | None = None
    is_anchor: bool = False
    anchor: bool = False
    room_name: str | None = None
    anchor_nick_name: str | None = None
    anchor_img: str | None = None
    user_id: int | None = None
    nick_name: str | None = None
    avatar: str = DEFAULT_AVATAR
    watcher_nick_name: str | None = None
    watcher_avatar: str | None = None
    default_bg_img: str = DEFAULT_BACKGROUND
    pk_obj_id: int | None = None
    push_url: str | None = None
    stream_key: str | None = None
    play_url: str | None = None
    on_air: bool = False


class ListedRoom(ResponseData):
    """A room in the list."""

    id: int
    room_name: str
    anchor_id: int
    anchor_nick_name: str | None
    anchor_avatar: str
    watch_num: int
    good_num: int
    covert_img: str
    on_air: bool


class Listed(ResponseData):
    """A page of rooms, the newest first."""

    list: list[ListedRoom]
    has_next: bool


@living.post("/startingLiving")
@logged_in(Start, Started)
async def starting_living(asked: Start, user: User) -> Started:
    """Open a living room, or find the one that is open. For VIPs."""
    ctx = context()
    room = await ctx.living_rooms.start(
        user, asked.type, ctx.clock(), room_name=asked.room_name, covert_img=asked.covert_img
    )
    return Started(room_id=room.id)


@living.post("/closeLiving")
@logged_in(OneRoom)
async def close_living(asked: OneRoom, user: User) -> None:
    """Close one's own living room."""
    ctx = context()
    await ctx.living_rooms.close(user.id, asked.room_id, ctx.clock())


@living.post("/anchorConfig")
@anyone(OneRoom, AnchorConfig)
async def anchor_config(asked: OneRoom, caller: Caller) -> AnchorConfig:
    """What the page of a room needs: who is live there, and who is watching."""
    watcher = await caller.user()
    if watcher is None:
        return AnchorConfig()
    about_watcher = AnchorConfig(
        user_id=watcher.id,
        nick_name=watcher.nick_name,
        watcher_nick_name=watcher.nick_name,
        watcher_avatar=watcher.avatar or DEFAULT_AVATAR,
    )
    ctx = caller.context
    room = await ctx.living_rooms.find(asked.room_id, ctx.clock())
    if room is None:
        return about_watcher
    return about_watcher.model_copy(update=await _about_room(caller, room, watcher))


async def _about_room(caller: Caller, room: LivingRoom, watcher: User) -> dict[str, object]:
    ctx = caller.context
    is_anchor = room.anchor_id == watcher.id
    # Who watches is known from the session, so one query is enough for the two of them.
    anchor = watcher if is_anchor else (await ctx.accounts.batch([room.anchor_id])).get(room.anchor_id)
    return {
        "room_id": room.id,
        "anchor_id": room.anchor_id,
        "is_anchor": is_anchor,
        "anchor": is_anchor,
        "room_name": room.room_name,
        "anchor_nick_name": anchor.nick_name if anchor else None,
        "anchor_img": room.covert_img or DEFAULT_AVATAR,
        "avatar": (anchor.avatar if anchor else "") or DEFAULT_AVATAR,
        "push_url": push_url(ctx) if is_anchor else None,
        "stream_key": stream_key(ctx, room.id) if is_anchor else None,
        "play_url": play_url(ctx, room.id),
        "on_air": ctx.streams.is_on_air(room.id),
    }


@living.post("/list")
@anyone(PageOfRooms, Listed)
async def list_rooms(asked: PageOfRooms, caller: Caller) -> Listed:
    """The rooms of one type that are live, the newest first."""
    ctx = caller.context
    directory = ctx.room_directory
    rooms, has_next = directory.page(asked.type, asked.page, asked.page_size)
    listed = [_listed(room, directory.anchors.get(room.anchor_id), ctx.streams.is_on_air(room.id)) for room in rooms]
    return Listed(list=listed, has_next=has_next)


def _listed(room: LivingRoom, anchor: User | None, on_air: bool) -> ListedRoom:
    return ListedRoom(
        id=room.id,
        room_name=room.room_name,
        anchor_id=room.anchor_id,
        anchor_nick_name=anchor.nick_name if anchor is not None else None,
        anchor_avatar=(anchor.avatar if anchor is not None else "") or DEFAULT_AVATAR,
        watch_num=room.watch_num,
        good_num=room.good_num,
        covert_img=room.covert_img or DEFAULT_AVATAR,
        on_air=on_air,
    )
