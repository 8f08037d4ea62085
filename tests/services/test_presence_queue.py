from __future__ import annotations

from qiyu.errors import PresenceUnavailable
from qiyu.metrics import Metrics
from qiyu.presence.memory import MemoryPresence
from qiyu.presence.presence import FindPins, User
from qiyu.services.presence_queue import BATCH_REQUESTS, Outcome, PresenceQueue

ANNA = User(10_001, 20_001)


def test_requests_are_taken_in_their_order_in_portions_and_answered_to_whom_asked() -> None:
    woken: list[None] = []
    queue = PresenceQueue(Metrics(), wake=lambda: woken.append(None))
    answers: list[tuple[int, Outcome]] = []
    for n in range(BATCH_REQUESTS + 2):
        queue.ask(FindPins((ANNA,) * n), lambda outcome, n=n: answers.append((n, outcome)))  # type: ignore[misc]
    assert len(queue) == len(woken) == BATCH_REQUESTS + 2
    presence = MemoryPresence()
    while asked := queue.take():
        queue.answered(asked, presence.execute([one.request for one in asked]))
    assert answers == [(n, [None] * n) for n in range(BATCH_REQUESTS + 2)]
    assert queue.metrics.presence_round_trips == 2


def test_over_its_bound_it_answers_at_once_that_presence_does_not() -> None:
    queue = PresenceQueue(Metrics(), max_waiting=1)
    answers: list[Outcome] = []
    queue.ask(FindPins(()), answers.append)
    queue.ask(FindPins(()), answers.append)
    [answer] = answers
    assert isinstance(answer, PresenceUnavailable)
    assert queue.metrics.presence_requests_dropped == 1
    assert len(queue) == 1


def test_failures_are_handed_on_and_counted() -> None:
    queue = PresenceQueue(Metrics())
    answers: list[Outcome] = []
    queue.ask(FindPins(()), answers.append)
    failure = PresenceUnavailable("away")
    queue.answered(queue.take(), [failure])
    assert answers == [failure]
    assert queue.metrics.presence_requests_failed == 1
