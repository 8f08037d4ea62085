"""The tests of the accelerator with AddressSanitizer and UBSan, which end the process at the first byte out of bounds.

`make sanitize` runs it: `python -m sanitized` in this folder.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = HERE.parent / "src/qiyu/protocol/_accelerator.c"
MODULE = "qiyu.protocol._accelerator"
TESTS = ("protocol/test_accelerator.py", "protocol/test_ack_runs.py", "protocol/test_frames.py")
SANITIZED = "SANITIZED_ACCELERATOR"  # where it was built, for the process that runs the tests


def main() -> None:
    """Build it, and start anew with the sanitizers' library in front of all others; there, run the tests."""
    built = os.environ.get(SANITIZED)
    if built is not None:
        sys.exit(_test(built))
    with tempfile.TemporaryDirectory(prefix="qiyu-") as folder:
        sys.exit(_build_and_start(Path(folder) / "_accelerator.abi3.so"))


def _build_and_start(built: Path) -> int:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        sys.exit("sanitized: needs a C compiler")
    flags = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", "-shared", "-fPIC"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DPy_LIMITED_API=0x030B0000"]
    include = f"-I{sysconfig.get_path('include')}"
    subprocess.run([compiler, *flags, include, "-o", str(built), str(SOURCE)], check=True)
    library = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
    ).stdout.strip()
    environment = os.environ | {
        SANITIZED: str(built),
        "LD_PRELOAD": library,
        "PYTHONMALLOC": "malloc",  # else an object's neighbours are Python's own, and a byte too far is not seen
        "ASAN_OPTIONS": "detect_leaks=0",  # Python leaves much to the end of the process
    }
    return subprocess.run([sys.executable, "-m", "sanitized"], cwd=HERE, env=environment, check=False).returncode


def _test(built: str) -> int:
    spec = importlib.util.spec_from_file_location(MODULE, built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[MODULE] = module  # where the tests find it, before any other
    import pytest

    tests = [str(HERE / test) for test in TESTS]
    return pytest.main(
        ["-q", "-p", "no:cacheprovider", "--hypothesis-profile=fuzz", f"--rootdir={HERE.parent}", *tests]
    )


if __name__ == "__main__":
    main()
