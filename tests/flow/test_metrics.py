"""/metrics of a running server, and the dashboard that is made of it."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from typing import Any, Final

import trio
from prometheus_client.parser import text_string_to_metric_families

from documents import ROOT, table
from raw_clients import ACK, BIZ, HEARTBEAT, ROOM_CHAT
from servers import RunningServer, Start
from video import free_port

DASHBOARD: Final[dict[str, Any]] = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text(encoding="utf-8"))
NAMES: Final = re.compile(r"\b(?:qiyu|process|python)_[a-z0-9_]+")
OF_GRAFANA_8: Final = 30  # the oldest schema whose panels are of these kinds; Grafana raises older ones by itself


async def scrape(server: RunningServer) -> str:
    def read() -> str:
        with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    return await trio.to_thread.run_sync(read)


def samples_of(text: str) -> dict[str, float]:
    """By name and, of a histogram's buckets, by name alone: the last one, which has them all."""
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


async def test_what_people_do_is_in_the_figures(server: RunningServer) -> None:
    async with await server.tcp_peer(10001, 1) as one, await server.ws_peer(10002, 1) as two:
        await one.say(1, "at once")
        heard = await two.expect(BIZ)
        data = {"roomId": 1, "content": "once it is stored"}
        await one.send(BIZ, bizCode=ROOM_CHAT, clientMsgId="a", data=data)
        await one.expect(ACK)
        stored = await two.expect(BIZ)
        await two.send(ACK, msgId=heard["msgId"])
        await one.send(HEARTBEAT)
        await one.expect(HEARTBEAT)
        await two.send(HEARTBEAT)
        await two.expect(HEARTBEAT)
        samples = samples_of(await scrape(server))
        assert stored["msgId"] > heard["msgId"]
    assert samples["qiyu_sessions"] == 2
    assert samples["qiyu_messages_accepted_total"] == samples["qiyu_deliveries_total"] == 2
    assert samples["qiyu_deliveries_in_flight"] == 1
    assert samples["qiyu_delivery_seconds_count"] == 2
    assert 0 < samples["qiyu_delivery_seconds_sum"] < 10
    assert 1 <= samples["qiyu_commit_seconds_count"] <= 2
    assert samples["qiyu_turn_seconds_count"] == samples["qiyu_turns_total"] > 5


async def test_the_docs_list_all_that_rises_and_falls(server: RunningServer) -> None:
    families = [family for family in text_string_to_metric_families(await scrape(server)) if family.type == "gauge"]
    listed = dict(table("metrics.md", "## What rises and falls"))
    assert {f"`{gauge.name}`": gauge.documentation for gauge in families if gauge.name.startswith("qiyu_")} == listed


async def test_the_dashboard_asks_for_what_there_is(server: RunningServer) -> None:
    families = list(text_string_to_metric_families(await scrape(server)))
    there = {sample.name for family in families for sample in family.samples}
    asked = set(NAMES.findall(json.dumps([DASHBOARD["panels"], DASHBOARD["templating"]])))
    assert len(asked) > 30
    assert asked <= there


def test_the_dashboard_is_one_for_grafana() -> None:
    assert DASHBOARD["schemaVersion"] >= OF_GRAFANA_8
    assert DASHBOARD["title"]
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", DASHBOARD["uid"])
    assert "id" not in DASHBOARD  # it is for Grafana to give
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["type"] == "timeseries"
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert target["expr"].count("(") == target["expr"].count(")")
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert used <= variables


async def test_with_a_port_of_its_own_it_is_there_alone(start_server: Start) -> None:
    port = free_port()
    async with start_server(admin__port=port) as server:

        def ask(address: str, path: str) -> int:
            try:
                with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as refused:
                with refused:
                    return refused.code

        statuses = {
            (where, path): await trio.to_thread.run_sync(ask, address, path)
            for where, address in (("public", server.http), ("admin", f"127.0.0.1:{port}"))
            for path in ("/metrics", "/docs", "/healthz", "/")
        }
        assert [path for (where, path), status in statuses.items() if where == "public" and status == 200] == [
            "/healthz",
            "/",
        ]
        assert [path for (where, path), status in statuses.items() if where == "admin" and status == 200] == [
            "/metrics",
            "/docs",
            "/healthz",
        ]
        server.stop()
        with trio.fail_after(10):
            await server.stopped.wait()
