from __future__ import annotations

from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest

from qiyu.web.images import DEFAULT_AVATAR, DEFAULT_BACKGROUND


@pytest.mark.parametrize("image", [DEFAULT_AVATAR, DEFAULT_BACKGROUND])
def test_it_is_a_whole_picture_that_asks_for_nothing_else(image: str) -> None:
    kind, _, svg = image.partition(",")
    assert kind == "data:image/svg+xml"
    root = ET.fromstring(unquote(svg))  # noqa: S314  # it is our own
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox")
    names = {name for element in root.iter() for name in element.attrib}
    assert not names & {"href", "{http://www.w3.org/1999/xlink}href", "onload"}


@pytest.mark.parametrize("image", [DEFAULT_AVATAR, DEFAULT_BACKGROUND])
def test_it_stands_in_an_attribute_and_in_json_as_it_is(image: str) -> None:
    assert image.isascii()
    assert not set(image) & set('"<>#\\ \n') - {" "}
