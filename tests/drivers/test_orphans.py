from __future__ import annotations

import os
import subprocess
import sys

from qiyu.drivers.orphans import reap_orphans

# In a process of its own: pytest's may have children that are not to be taken from it.
PROGRAM = """
import os, time
from qiyu.drivers.orphans import reap
assert reap() == 0
ends, end = os.pipe()
for _ in range(3):
    if os.fork() == 0:
        os._exit(0)
child = os.fork()
if child == 0:
    os.read(ends, 1)
    os._exit(0)
count = 0
while count < 3:
    count += reap()
assert reap() == 0  # one lives
os.write(end, b".")
while not reap():
    pass
assert reap() == 0
"""


def test_children_that_have_ended_are_gone_and_others_stay() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)


async def test_whoever_is_not_the_first_process_has_nothing_to_do() -> None:
    assert os.getpid() != 1
    await reap_orphans()
