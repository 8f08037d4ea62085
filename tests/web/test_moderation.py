from __future__ import annotations

from web.sites import Caller, Site


async def in_room(site: Site) -> tuple[Caller, Caller, int]:
    """An anchor, a viewer, and the anchor's room."""
    anchor, viewer = await site.user("anchor", vip=True), await site.user("viewer")
    room_id = (await anchor.post("/living/startingLiving", form={"type": 1})).data["roomId"]
    return anchor, viewer, room_id


async def test_an_anchor_mutes_removes_and_takes_it_back(site: Site) -> None:
    anchor, viewer, room_id = await in_room(site)
    about = {"roomId": room_id, "userId": viewer.user_id}
    assert (await anchor.post("/living/mute", json=about | {"seconds": 60})).data is None
    assert (await anchor.post("/living/remove", form=about | {"seconds": 0})).data is None
    [found] = (await anchor.post("/living/restricted", json={"roomId": room_id})).data["list"]
    assert found == {
        "userId": viewer.user_id,
        "nickName": "viewer",
        "mutedUntil": site.now.unix_ms + 60_000,
        "removedUntil": -1,
    }
    await anchor.post("/living/unmute", json=about)
    await anchor.post("/living/readmit", json=about)
    assert (await anchor.post("/living/restricted", json={"roomId": room_id})).data["list"] == []


async def test_a_term_that_is_left_out_is_ten_minutes(site: Site) -> None:
    anchor, _, room_id = await in_room(site)
    await anchor.post("/living/mute", json={"roomId": room_id, "userId": 77_777})
    [found] = (await anchor.post("/living/restricted", json={"roomId": room_id})).data["list"]
    assert found == {
        "userId": 77_777,  # need not have an account here
        "nickName": None,
        "mutedUntil": site.now.unix_ms + 600_000,
        "removedUntil": 0,
    }


async def test_nobody_else_does(site: Site) -> None:
    anchor, viewer, room_id = await in_room(site)
    about = {"roomId": room_id, "userId": anchor.user_id}
    for call in ("mute", "unmute", "remove", "readmit"):
        assert (await site.caller().post(f"/living/{call}", json=about)).refusal[0] == 401
        assert (await viewer.post(f"/living/{call}", json=about | {"userId": 77_777})).refusal == (
            403,
            f"roomId = {room_id}: only its anchor may do this",
        )
        assert (await anchor.post(f"/living/{call}", json=about)).refusal[0] == 501
        assert (await anchor.post(f"/living/{call}", json=about | {"roomId": 99, "userId": 77_777})).refusal == (
            404,
            "roomId = 99: there is no such open room",
        )
    assert (await viewer.post("/living/restricted", json={"roomId": room_id})).refusal[0] == 403
    assert (await anchor.post("/living/restricted", json={"roomId": 99})).refusal[0] == 404


async def test_a_term_that_cannot_be_is_named(site: Site) -> None:
    anchor, viewer, room_id = await in_room(site)
    about = {"roomId": room_id, "userId": viewer.user_id}
    for seconds in (-1, 366 * 86_400 + 1, "soon"):
        code, reason = (await anchor.post("/living/mute", json=about | {"seconds": seconds})).refusal
        assert (code, reason) == (400, f"seconds = {seconds}: expected a whole number from 0 to 31622400")
