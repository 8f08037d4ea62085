from __future__ import annotations

from pathlib import Path

import trio

from soak.run import Options, soak
from soak.watch import GAUGES, JUDGED_SECONDS, SPARE_FILES, Record, Sample, judge, memory_faults, numbers_in

MIB = 2**20
NOBODY = dict.fromkeys(GAUGES, 0.0)


def samples(*mebibytes: float, seconds: float = 2 * JUDGED_SECONDS) -> list[Sample]:
    step = seconds / (len(mebibytes) - 1)
    return [Sample(n * step, int(each * MIB), 20, NOBODY) for n, each in enumerate(mebibytes)]


def good() -> Record:
    record = Record(Sample(0, 90 * MIB, 20, NOBODY), samples(*[100.0] * 20), Sample(900, 100 * MIB, 21, NOBODY))
    record.ends.update({"logged out": 3, "ended as idle": 1})
    return record


def test_a_server_that_is_what_it_was() -> None:
    assert judge(good()) == []


def test_whatever_ended_without_a_reason_is_told() -> None:
    record = good()
    record.ends["closed without a word"] = 2
    assert judge(record) == ["2 × closed without a word"]
    record.ends.clear()
    assert judge(record) == ["no connection ended: nobody came"]


def test_what_is_left_when_everybody_is_gone_is_told() -> None:
    record = good()
    record.after = Sample(900, 100 * MIB, 20 + SPARE_FILES + 1, NOBODY | {"qiyu_outbox_bytes": 7.0})
    files, owed = judge(record)
    assert files.startswith("37 files are open")
    assert owed == "qiyu_outbox_bytes is 7 when everybody is gone"
    record.after = record.after._replace(files=20, numbers=NOBODY | {"qiyu_connections_crashed_total": 1.0})
    assert judge(record) == ["connections were closed because of a bug; see the server's log"]


def test_memory_that_grows_is_told_once_there_was_time_to_see_it() -> None:
    growing = [100.0 + 5 * n for n in range(20)]
    (fault,) = memory_faults(samples(*growing))
    assert fault.startswith("memory grew from 1")
    assert memory_faults(samples(*growing, seconds=JUDGED_SECONDS - 1)) == []
    assert memory_faults(samples(*(100.0 + n % 5 for n in range(20)))) == []
    assert memory_faults(samples(*(100.0 + 0.5 * n for n in range(20)))) == []  # within what is allowed
    assert memory_faults([]) == []


def test_numbers_of_a_page() -> None:
    page = (
        '# HELP qiyu_sessions Users.\nqiyu_sessions 3.0\nqiyu_turn_seconds_bucket{le="1"} 4\nqiyu_logins_total 1e+06\n'
    )
    assert numbers_in(page) == {"qiyu_sessions": 3.0, "qiyu_logins_total": 1_000_000.0}


async def test_a_short_run_with_a_storm_or_a_kill(tmp_path: Path) -> None:
    """Everybody comes, is disturbed, and goes; nothing is left, and every end has a reason."""
    told: list[str] = []
    options = Options(seconds=6, crowds=2, clients=6, sample_seconds=1, trouble_seconds=2, seed=1)
    with trio.fail_after(120):
        record, faults = await soak(options, tmp_path, told.append)
    assert faults == []
    assert len(record.samples) >= 3
    assert record.after is not None
    assert any("storm" in line or "killed" in line for line in told)
