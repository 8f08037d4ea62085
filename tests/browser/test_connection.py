"""What the page does when its connection, its server or its session goes."""

from __future__ import annotations

from playwright.sync_api import expect

from browser.conftest import OpenPage
from browser.house import House
from browser.test_room import enter, say


def test_a_server_that_is_killed_and_comes_back_loses_nothing(own_house: House, open_page: OpenPage) -> None:
    house = own_house
    anchor, room = house.open_room()
    viewer = house.person("viewer")
    page = enter(open_page(anchor, f"/#/room/{room}", at=house))
    watcher = enter(open_page(viewer, f"/#/room/{room}", at=house))
    say(page, "before")
    expect(watcher.locator(".row .content")).to_have_text(["before"])
    house.kill()
    expect(page.locator(".status-text")).to_have_text("The connection was lost. Reconnecting…")
    say(page, "while it was gone")
    expect(page.locator(".row.pending .content")).to_have_text(["while it was gone"])
    house.start()
    with house.tcp(house.person(), room) as tcp:
        tcp.say(room, "missed, perhaps")
        for each in (page, watcher):
            now = each.get_by_role("button", name="Try now")
            if now.is_visible():
                now.click()
        expect(page.locator(".status")).to_be_hidden()
        expect(page.locator(".row.mine.stored .content")).to_have_text(["before", "while it was gone"])
        for each in (page, watcher):
            rows = each.locator(".row .content")
            expect(rows).to_have_count(3)
            assert sorted(rows.all_inner_texts()) == ["before", "missed, perhaps", "while it was gone"]
        assert tcp.heard() == "while it was gone"


def test_signed_in_elsewhere_is_said_and_can_be_taken_back(house: House, open_page: OpenPage) -> None:
    anchor, room = house.open_room()
    first = enter(open_page(anchor, f"/#/room/{room}"))
    second = enter(open_page(anchor, f"/#/room/{room}"))
    expect(first.locator(".status-text")).to_have_text("You have signed in elsewhere.")
    say(second, "from the second")
    first.wait_for_timeout(1500)  # it does not come back by itself
    expect(second.locator(".status")).to_be_hidden()
    first.get_by_role("button", name="Use it here").click()
    expect(first.locator(".status")).to_be_hidden()
    expect(first.locator(".row .content")).to_have_text(["from the second"])
    expect(second.locator(".status-text")).to_have_text("You have signed in elsewhere.")


def test_signing_out_ends_it(house: House, open_page: OpenPage) -> None:
    page = open_page(house.person("somebody"))
    page.locator("summary[aria-label='Menu of somebody']").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    assert house.call("/home/initPage")["loginStatus"] is False


def test_a_server_that_is_gone_at_first_is_said(own_house: House, open_page: OpenPage) -> None:
    page = open_page(own_house.person(), at=own_house)
    own_house.kill()
    expect(page.locator(".problem")).to_be_visible()
    own_house.start()
    expect(page.locator(".problem")).to_be_hidden()
