"""The first page, accounts, going live, and direct messages."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import expect

from browser.conftest import OpenPage
from browser.house import PASSWORD, House
from browser.test_room import enter, say


def test_somebody_new_signs_up_enters_and_chats(house: House, open_page: OpenPage) -> None:
    _, room = house.open_room("A room for newcomers", nick_name="host")
    page = open_page()
    card = page.locator(f".card[href='#/room/{room}']")
    expect(card.locator("h2")).to_have_text("A room for newcomers")
    expect(card.locator("p")).to_have_text("host")
    card.click()
    page.get_by_role("button", name="Sign up").click()
    page.get_by_label("Name", exact=True).fill("newcomer")
    page.get_by_label("Nickname (optional)").fill("新来的")
    page.get_by_label("Password").fill(PASSWORD)
    page.locator("dialog form").get_by_role("button", name="Sign up").click()
    enter(page)
    say(page, "hello")
    expect(page.locator(".row.stored .name")).to_have_text("新来的")
    page.go_back()
    expect(card.locator(".count").first).to_have_attribute("aria-label", re.compile("^[01] watching$"))


def test_where_registration_is_closed_there_is_only_signing_in(tmp_path: Path, open_page: OpenPage) -> None:
    house = House(tmp_path, accounts__registration="closed")
    house.start()
    try:
        page = open_page(at=house)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("dialog").get_by_label("Name", exact=True)).to_be_visible()
        expect(page.locator("dialog .segmented")).to_have_count(0)
        expect(page.locator("dialog").get_by_role("button", name="Sign up")).to_have_count(0)
    finally:
        house.stop()


def test_what_is_wrong_is_said_in_place(house: House, open_page: OpenPage) -> None:
    taken = house.person()
    page = open_page(language="zh-CN", expects="the server responded with a status of")
    page.get_by_role("button", name="登录").click()
    page.get_by_label("用户名").fill(taken.name)
    page.get_by_label("密码").fill("wrong password")
    page.locator("dialog .wide").click()
    expect(page.locator("dialog .problem")).to_have_text("用户名或密码不对。")
    page.locator("dialog").get_by_role("button", name="注册").first.click()
    page.get_by_label("用户名").fill(taken.name)
    page.get_by_label("密码").fill(PASSWORD)
    page.locator("dialog .wide").click()
    expect(page.locator("dialog .problem")).to_have_text("这个用户名已经有人用了。")


def test_rooms_come_change_and_go_while_one_looks(house: House, open_page: OpenPage) -> None:
    page = open_page()
    expect(page.locator(".home h1")).to_be_visible()
    anchor, room = house.open_room("Here for a moment")
    card = page.locator(f".card[href='#/room/{room}']")
    expect(card).to_be_visible()
    with house.tcp(house.person(), room):
        expect(card.locator(".count").first).to_have_attribute("aria-label", "1 watching")
    house.call("/living/closeLiving", anchor.session, roomId=room)
    expect(card).to_have_count(0)


def test_a_vip_goes_live_and_others_learn_how_to_become_one(house: House, open_page: OpenPage) -> None:
    page = open_page(house.person())
    page.get_by_role("button", name="Go live").click()
    expect(page.locator("dialog")).to_contain_text("Only VIPs can go live here.")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    vip = house.person("star", vip=True)
    page = open_page(vip)
    page.get_by_role("button", name="Go live").click()
    page.get_by_label("Room name (optional)").fill("First broadcast")
    page.get_by_role("radio", name="PK").check()
    page.locator("dialog form").get_by_role("button", name="Go live").click()
    enter(page)
    expect(page.locator(".room h1")).to_have_text("First broadcast")
    expect(page.locator(".anchor")).to_be_visible()
    other = open_page()
    other.get_by_role("button", name="PK").click()
    expect(other.locator(".card h2")).to_contain_text(["First broadcast"])


def test_more_rooms_come_as_one_scrolls(own_house: House, open_page: OpenPage) -> None:
    rooms = {own_house.open_room(f"room {number}")[1] for number in range(30)}
    page = open_page(at=own_house, size={"width": 700, "height": 500})
    expect(page.locator(".card").first).to_be_visible()
    assert page.locator(".card").count() <= 30
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    expect(page.locator(".card")).to_have_count(len(rooms))


def test_direct_messages_are_unread_until_they_are_read_also_after_having_been_away(
    house: House, open_page: OpenPage
) -> None:
    _anchor, room = house.open_room()
    one, two = house.person("one"), house.person("two")
    first = enter(open_page(one, f"/#/room/{room}"))
    second = enter(open_page(two, f"/#/room/{room}"))
    say(first, "hello all")
    second.click(".row .name >> text=one")
    second.get_by_role("button", name="Send a message").click()
    write = second.locator(".drawer textarea")
    write.fill("hello you")
    write.press("Enter")
    expect(second.locator(".drawer .row.stored .content")).to_have_text(["hello you"])
    expect(first.get_by_role("button", name="Messages, 1 unread")).to_be_visible()

    first.context.close()
    write.fill("are you there?")
    write.press("Enter")
    expect(second.locator(".drawer .row.stored")).to_have_count(2)
    first = open_page(one)
    first.get_by_role("button", name="Messages, 2 unread").click()
    first.locator(".conversation").click()
    expect(first.locator(".drawer .row .content")).to_have_text(["hello you", "are you there?"])
    expect(first.get_by_role("button", name="Messages", exact=True)).to_be_visible()
    first.locator(".drawer textarea").fill("yes")
    first.locator(".drawer textarea").press("Enter")
    expect(second.locator(".drawer .row .content")).to_have_text(["hello you", "are you there?", "yes"])
    expect(second.get_by_role("button", name="Messages", exact=True)).to_be_visible()
    first.reload()
    expect(first.get_by_role("button", name="Messages", exact=True)).to_be_visible()
    first.get_by_role("button", name="Messages", exact=True).click()
    expect(first.locator(".conversation-last")).to_have_text("You: yes")
