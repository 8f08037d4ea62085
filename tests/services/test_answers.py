"""Who waits for what becomes of a message between instances."""

from __future__ import annotations

from harness import ACK, ERROR, Harness, receipts
from qiyu.errors import ErrorCode, Refused
from qiyu.services.answers import OriginSender, SessionOrigin

ANNA = 20_001


class Recorder:
    def __init__(self) -> None:
        self.heard: list[int | str] = []

    def receipted(self, msg_id: int) -> None:
        self.heard.append(msg_id)

    def refused(self, refusal: Refused) -> None:
        self.heard.append(refusal.reason)


def test_a_session_waits_for_its_answer_and_is_told() -> None:
    harness = Harness()
    anna = harness.log_in(ANNA)
    stored, refused, silent = (SessionOrigin(anna.session, cid, harness.metrics) for cid in ("c-1", "c-2", ""))
    assert anna.session.waiting == 3
    stored.receipted(7)
    refused.refused(Refused(ErrorCode.UNAVAILABLE, "not now"))
    silent.receipted(8)
    assert anna.session.waiting == 0
    first, second = anna.receive()
    assert (first.code, second.code) == (ACK, ERROR)
    assert receipts([first]) == [("c-1", "7")]
    assert second.body["clientMsgId"] == "c-2"
    assert harness.metrics.receipts == harness.metrics.packets_refused == 1


def test_a_session_that_has_ended_is_told_nothing() -> None:
    harness = Harness()
    anna = harness.log_in(ANNA)
    session = anna.session
    waits = [SessionOrigin(session, "c", harness.metrics) for _ in range(2)]
    anna.hang_up()
    waits[0].receipted(7)
    waits[1].refused(Refused(ErrorCode.UNAVAILABLE, "not now"))
    assert session.waiting == 0
    assert harness.metrics.receipts == 0


def test_what_was_not_taken_waits_for_nothing() -> None:
    harness = Harness()
    session = harness.log_in(ANNA).session
    SessionOrigin(session, "c", harness.metrics).was_not_taken()
    assert session.waiting == 0


def test_an_origin_is_answered_once() -> None:
    """A message that the database may have or not is refused, and receipted when it is found."""
    origin = Recorder()
    sender = OriginSender(origin)
    sender.waiting += 1
    sender.send_error(Refused(ErrorCode.UNAVAILABLE, "not now"))
    sender.send_receipt("c", 7)
    sender.settled()
    assert origin.heard == ["not now"]
    assert sender.ended
    assert sender.waiting == 0
