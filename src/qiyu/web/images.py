"""The pictures of those who have none: part of the answers, so no page has to ask another host for them."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote


def _data_url(svg: str) -> str:
    return "data:image/svg+xml," + quote(svg, safe=" =:/'(),.")


DEFAULT_AVATAR: Final = _data_url(
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 64 64'><path fill='#c8d0da' d='M0 0h64v64H0z'/>"
    "<circle cx='32' cy='25' r='12' fill='#fff'/><path fill='#fff' d='M10 64a22 22 0 0 1 44 0z'/></svg>"
)
DEFAULT_BACKGROUND: Final = _data_url(
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 9 16'><linearGradient id='g' x2='1' y2='1'>"
    "<stop stop-color='#2b3a67'/><stop offset='1' stop-color='#7b3f61'/></linearGradient>"
    "<path fill='url(#g)' d='M0 0h9v16H0z'/></svg>"
)
