"""What an encoder says of its stream before it begins: the `onMetaData` of a data message (FLV 10.1, section E.5)."""

from __future__ import annotations

import msgspec

from qiyu.protocol.rtmp.amf0 import AmfError, Value, decode


class Metadata(msgspec.Struct):
    """Which tracks there will be."""

    has_video: bool
    has_audio: bool


def read_metadata(payload: bytes) -> Metadata | None:
    """The metadata in a data message; None where there is none, or none that can be read: nothing hangs on it."""
    try:
        values = decode(payload)
    except AmfError:
        return None
    match values:
        case ["@setDataFrame", "onMetaData", dict(told), *_] | ["onMetaData", dict(told), *_]:
            return Metadata(_is_told(told.get("videocodecid")), _is_told(told.get("audiocodecid")))
        case _:
            return None


def _is_told(codec: Value) -> bool:
    # A number as in a tag's body, or a name; Sorenson's and PCM's numbers are not among what is shown here.
    return isinstance(codec, str | float) and bool(codec)
