"""The innermost reading, in C where that was built (_accelerator.c), and in Python elsewhere: the same either way.

With the variable QIYU_PURE_PYTHON it is in Python, whatever was built.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import ModuleType
from typing import Final

from qiyu.protocol import ack_runs, masking

PURE_PYTHON: Final = "QIYU_PURE_PYTHON"
INTERFACE: Final = 1
"""That of the _accelerator.c which belongs to this file; what was built for another is not used."""


def load(environ: Mapping[str, str]) -> tuple[ModuleType | None, str]:
    """What was built, if it is to be used; and in words what is used, and why."""
    if environ.get(PURE_PYTHON, "0") not in {"", "0"}:
        return None, f"off, by {PURE_PYTHON}"
    try:
        from qiyu.protocol import _accelerator  # noqa: PLC0415  # it may not be there
    except ImportError:
        return None, "off, for it was not built"
    if _accelerator.INTERFACE != INTERFACE:
        return None, "off, for it was built for another version"
    return _accelerator, "on"


_native, STATE = load(os.environ)
read_packets = ack_runs.read_packets if _native is None else _native.read_packets
read_frames = ack_runs.read_frames if _native is None else _native.read_frames
unmask = masking.unmask if _native is None else _native.unmask
