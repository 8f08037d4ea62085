"""What the description says is what the server does, whatever is sent.

A real server on the loopback interface, and a client that makes up requests from /openapi.json in a thread.
"""

from __future__ import annotations

import warnings
from collections import Counter
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from quart import Response, request

from qiyu.accounts.accounts import AccountRules
from qiyu.drivers.http import HttpFront, HttpRules, run_http
from qiyu.drivers.listener import address_of, bind
from qiyu.metrics import Metrics
from qiyu.storage.database import Database
from web.sites import Site, bearer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis import GenerationMode, checks

EXAMPLES = 30


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.filterwarnings("ignore")  # schemathesis's own
async def test_no_request_breaks_the_server_and_every_answer_is_as_described(
    database: Database, mode: GenerationMode
) -> None:
    site = Site(database, AccountRules(name_failures=0, address_failures=0, address_registrations=0))
    anchor = await site.user("anchor", vip=True)
    await anchor.post("/living/startingLiving", form={"type": 1})
    description = (await anchor.get("/openapi.json")).body
    answered: Counter[tuple[str, int]] = Counter()

    @site.app.after_request
    async def count(response: Response) -> Response:
        answered[request.path, response.status_code] += 1
        return response

    sockets = bind("http", ["127.0.0.1"], 0)
    url = f"http://{address_of(sockets[0])}"
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(run_http, HttpFront(site.app, HttpRules(), Metrics()), sockets, stop.wait)
        for path, operations in description["paths"].items():
            if mode.is_negative and not has_parameters(operations):
                continue  # there is nothing to do wrong
            # Logging out would end the session of the calls that follow.
            headers = {} if path.startswith("/user/") else bearer(anchor.token)
            await trio.to_thread.run_sync(partial(send_requests, description, path, url, headers, mode))
        stop.set()
    asked = {path for path, _ in answered}
    assert asked == {path for path, each in description["paths"].items() if mode.is_positive or has_parameters(each)}
    succeeded = {path for path, status in answered if status == 200}
    # Nobody guesses a password; nor who is a member of a room that may be closed by then.
    of_members = {f"/living/{name}" for name in ("mute", "unmute", "remove", "readmit", "restricted")}
    assert not mode.is_positive or succeeded | of_members == asked - {"/user/login"}


def has_parameters(operations: dict[str, Any]) -> bool:
    return "requestBody" in operations.get("post", {})


def send_requests(
    description: dict[str, Any], path: str, url: str, headers: dict[str, str], mode: GenerationMode
) -> None:
    """Make up requests to one path, and check each answer against what the description says of it."""
    [found] = schemathesis.openapi.from_dict(description).include(path=path).get_all_operations()
    operation: Any = found.ok()  # type: ignore[union-attr]  # the description is a valid one
    wanted: list[Any] = [
        checks.not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        case.call_and_validate(base_url=url, headers=headers, checks=wanted)

    send()
