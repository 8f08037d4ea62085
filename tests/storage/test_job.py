from __future__ import annotations

import threading
from contextlib import suppress

import pytest
import trio
from structlog.testing import capture_logs

from qiyu.errors import DatabaseUnavailable
from qiyu.storage.job import CutOff, Job


@pytest.fixture(autouse=True)
def _nothing_is_left() -> None:
    """Here, errors are logged on purpose."""


class Statement:
    """Something that a thread waits for until it is stopped."""

    def __init__(self) -> None:
        self.begun = trio.Event()
        self.stopped = threading.Event()
        self.calls: list[str] = []
        self._token = trio.lowlevel.current_trio_token()

    def wait(self, *, seconds: float = 10) -> str:
        self._token.run_sync_soon(self.begun.set)
        if not self.stopped.wait(seconds):
            return "ended by itself"
        raise CutOff


def started(job: Job[str], statement: Statement, *ways: str, by: str) -> None:
    """`by` is the one of the ways that does stop it."""

    def way(name: str) -> None:
        statement.calls.append(name)
        if name == by:
            statement.stopped.set()

    def work() -> str:
        with job.stoppable(*[lambda name=name: way(name) for name in ways]):
            return statement.wait()

    job.start(work)


async def test_its_result() -> None:
    ended: list[Job[str]] = []
    job = Job[str](ended.append)
    job.start(lambda: "done")
    with trio.fail_after(5):
        await job.done.wait()
    assert job.result("too late") == "done"
    assert ended == [job]
    await job.cut_off()  # it has ended: nothing happens
    assert not job.is_cut_off


async def test_what_it_raises() -> None:
    def fail() -> str:
        raise KeyError("mine")

    job = Job[str](lambda _: None)
    job.start(fail)
    await job.done.wait()
    with pytest.raises(KeyError, match="mine"):
        job.result("too late")


@pytest.mark.parametrize(("by", "called"), [("ask", ["ask"]), ("sever", ["ask", "sever"])])
async def test_it_is_stopped_one_way_or_the_other(by: str, called: list[str]) -> None:
    job, statement = Job[str](lambda _: None), Statement()
    started(job, statement, "ask", "sever", by=by)
    await statement.begun.wait()
    await job.cut_off()
    assert statement.calls == called
    with pytest.raises(DatabaseUnavailable, match="too late"):
        job.result("too late")


async def test_what_cannot_be_stopped_is_left_and_told() -> None:
    ended: list[Job[str]] = []
    job, statement = Job[str](ended.append), Statement()
    started(job, statement, "ask", by="nothing")
    await statement.begun.wait()
    with capture_logs() as logs:
        await job.cut_off()
    assert [entry["event"] for entry in logs] == ["a transaction does not end; its connection is lost"]
    assert statement.calls == ["ask"] * 3
    with pytest.raises(DatabaseUnavailable, match="too late"):
        job.result("too late")
    assert ended == []  # whoever counts connections still counts this one
    statement.stopped.set()
    with trio.fail_after(5):
        while not ended:
            await trio.lowlevel.checkpoint()


async def test_what_has_nothing_to_stop_is_left_in_silence() -> None:
    """It still connects, which has a bound of its own."""
    job, statement = Job[str](lambda _: None), Statement()
    job.start(statement.wait)
    await statement.begun.wait()
    with capture_logs() as logs:
        await job.cut_off()
    assert logs == []
    assert job.done.is_set()
    statement.stopped.set()


async def test_what_was_cut_off_does_not_go_on() -> None:
    job, statement = Job[str](lambda _: None), Statement()
    went_on = threading.Event()

    def work() -> str:
        with job.stoppable(statement.stopped.set):
            with suppress(CutOff):  # as one who catches too much
                statement.wait()
            job.check()
            went_on.set()
            return "went on"

    job.start(work)
    await statement.begun.wait()
    await job.cut_off()
    with pytest.raises(DatabaseUnavailable, match="too late"):
        job.result("too late")
    assert not went_on.is_set()


async def test_a_connection_that_was_given_back_is_not_stopped() -> None:
    """Invariant: no way to stop is called once the work has left `stoppable`, as the connection is another's then."""
    job, statement = Job[str](lambda _: None), Statement()
    calls: list[str] = []

    def work() -> str:
        with job.stoppable(lambda: calls.append("stopped")):
            pass
        return statement.wait()

    job.start(work)
    await statement.begun.wait()
    await job.cut_off()
    statement.stopped.set()
    assert calls == []


async def test_a_failure_that_nobody_waits_for_is_told() -> None:
    def fail() -> str:
        raise KeyError("mine")

    job = Job[str](lambda _: None)
    job.abandoned = True
    with capture_logs() as logs:
        job.start(fail)
        await job.done.wait()
    assert [entry["event"] for entry in logs] == ["a transaction failed after its caller had left"]


def test_a_thread_that_ends_after_trio_harms_nobody() -> None:
    go_on, ended = threading.Event(), threading.Event()

    async def main() -> None:
        def work() -> str:
            go_on.wait(10)
            ended.set()
            return "late"

        Job[str](lambda _: None).start(work)

    trio.run(main)
    go_on.set()
    assert ended.wait(5)
