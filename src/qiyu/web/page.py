"""GET /, the page for browsers, and the files it is made of (pages/).

The files are read once. All but the first stand under an address with the digest of all of them, `assets/<digest>/…`,
and so are kept by browsers for ever; the first, which names that address, is asked for each time. Addresses in the
files are relative, so the page works under any path that a proxy gives it.

Nothing is loaded from elsewhere but pictures that people have named, and no text becomes HTML or script: the page makes
its elements one by one, and Trusted Types have the browser hold it to that.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from quart import Blueprint, Response, request
from quart_schema import hide
from werkzeug.exceptions import NotFound

FIRST: Final = "index.html"
_ASSETS: Final = b"{{assets}}"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS: Final = {
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data: http: https:",  # covers and avatars are addresses that people have given
            "media-src 'self' blob: http: https:",  # an engine in front may have the picture at its own address
            "connect-src 'self' ws: wss:",  # the messaging side has a port of its own, or hosts of its own
            "form-action 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_FOR_EVER: Final = "public, max-age=31536000, immutable"

page = Blueprint("page", __name__)


class File(NamedTuple):
    """A file as it is sent."""

    content: bytes
    zipped: bytes
    type: str
    etag: str


class PageFiles:
    """The files of a folder, and `version`, the digest of them all."""

    def __init__(self, folder: Path) -> None:
        contents = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.suffix in _TYPES and path.is_file()
        }
        digest = hashlib.sha256()
        for name, content in contents.items():
            digest.update(b"%s\0%d\0" % (name.encode(), len(content)))
            digest.update(content)
        self.version = digest.hexdigest()[:16]
        contents[FIRST] = contents[FIRST].replace(_ASSETS, f"assets/{self.version}".encode())
        self._files = {name: _file(name, content) for name, content in contents.items()}

    def __repr__(self) -> str:
        return f"<PageFiles {self.version} files={len(self._files)} bytes={self.bytes}>"

    @property
    def bytes(self) -> int:
        """What all of them weigh, before compression."""
        return sum(len(file.content) for file in self._files.values())

    def find(self, name: str) -> File | None:
        """The file with this path below the folder."""
        return self._files.get(name)


@cache
def page_files() -> PageFiles:
    """Those of this installation."""
    return PageFiles(Path(str(resources.files("qiyu") / "web" / "pages")))


@page.get("/")
@hide
async def index() -> Response:
    """The page. Which room it shows is after the #, and so its own affair."""
    return _send(FIRST, "no-cache")


@page.get("/assets/<version>/<path:name>")
@hide
async def asset(version: str, name: str) -> Response:
    """A file of the page. Another version's page gets what there is: better than none, but not to be kept."""
    return _send(name, _FOR_EVER if version == page_files().version else "no-cache")


@page.get("/favicon.ico")
@hide
async def favicon() -> Response:
    """What browsers ask for that show something else from here."""
    return _send("icon.svg", "no-cache")


def _send(name: str, cache_control: str) -> Response:
    file = page_files().find(name)
    if file is None:
        raise NotFound
    headers = {"Cache-Control": cache_control, "ETag": file.etag, "Vary": "Accept-Encoding", **_HEADERS}
    if request.if_none_match.contains_weak(file.etag[1:-1]):
        return Response(b"", status=304, headers=headers)
    if request.accept_encodings["gzip"] > 0:
        return Response(file.zipped, content_type=file.type, headers={"Content-Encoding": "gzip", **headers})
    return Response(file.content, content_type=file.type, headers=headers)


def _file(name: str, content: bytes) -> File:
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return File(content, gzip.compress(content, mtime=0), _TYPES[PurePosixPath(name).suffix], etag)
