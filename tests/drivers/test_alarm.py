from __future__ import annotations

import select
from collections.abc import Iterator

import pytest

from qiyu.drivers.alarm import Alarm


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    alarm = Alarm()
    yield alarm
    alarm.close()


def rings(alarm: Alarm) -> bool:
    return bool(select.select([alarm], [], [], 0)[0])


def test_it_rings_until_cleared(alarm: Alarm) -> None:
    assert not rings(alarm)
    alarm.ring()
    alarm.ring()
    assert rings(alarm)
    alarm.clear()
    assert not rings(alarm)
    alarm.clear()
    alarm.ring()
    assert rings(alarm)


def test_ringing_never_waits(alarm: Alarm) -> None:
    for _ in range(200_000):  # more than a pipe holds
        alarm.ring()
    assert rings(alarm)
