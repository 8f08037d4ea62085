"""Builds the accelerator (src/qiyu/protocol/_accelerator.c) into a wheel, where there is a C compiler.

Without one, or without Python's headers, the wheel is that of pure Python, which does the same. Built, it is of the
stable ABI: one wheel serves Python 3.11 and every later version on that kind of machine.
"""

from __future__ import annotations

import shutil
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext

MODULE = "qiyu.protocol._accelerator"
SOURCE = "src/qiyu/protocol/_accelerator.c"
STABLE_ABI = "0x030B0000"


class AcceleratorHook(BuildHookInterface):  # type: ignore[type-arg]
    """hatchling's `custom` hook."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; for an editable installation into the sources, else for the wheel alone."""
        self._folder = Path(tempfile.mkdtemp(prefix="qiyu-"))
        built = _compiled(Path(self.root), self._folder)
        inside = Path(*MODULE.split(".")[:-1])
        beside = Path(self.root, "src", inside)
        if version == "editable":
            for old in beside.glob("_accelerator.*.so"):
                old.unlink()
            if built is not None:
                shutil.copy2(built, beside / built.name)
            return
        if built is not None:
            build_data["force_include"][str(built)] = str(inside / built.name)
            build_data["pure_python"] = False
            build_data["tag"] = f"cp311-abi3-{_platform()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove what was made on the way."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _compiled(root: Path, folder: Path) -> Path | None:
    """The module, or None where it could not be built: setuptools then says why, and that is all."""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return None  # Python without the lock has no stable ABI yet
    extension = Extension(
        MODULE, [str(root / SOURCE)], define_macros=[("Py_LIMITED_API", STABLE_ABI)], py_limited_api=True, optional=True
    )
    command = build_ext(Distribution({"name": "qiyu", "ext_modules": [extension]}))
    command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "temp")
    command.ensure_finalized()
    command.run()
    return next((folder / "lib").rglob("_accelerator*.so"), None)


def _platform() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
