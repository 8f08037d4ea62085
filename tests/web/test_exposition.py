"""What /metrics says, and that docs/metrics.md says the same."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest
from prometheus_client.parser import text_string_to_metric_families

from documents import table
from qiyu.metrics import Gauge, Histogram, Metrics
from qiyu.web.exposition import expose, helps_of_counts


def test_every_count_has_a_help_and_a_type() -> None:
    metrics = Metrics()
    metrics.deliveries = 12
    text = expose({"sessions": Gauge("Users who are logged in.", lambda: 3)}, metrics).decode()
    assert (
        "# HELP qiyu_deliveries_total Copies of messages put into an outbox.\n"
        "# TYPE qiyu_deliveries_total counter\n"
        "qiyu_deliveries_total 12.0\n"
    ) in text
    assert ("# HELP qiyu_sessions Users who are logged in.\n# TYPE qiyu_sessions gauge\nqiyu_sessions 3.0\n") in text
    families = [family for family in text_string_to_metric_families(text) if family.name.startswith("qiyu_")]
    assert len(families) == len(fields(metrics))  # one gauge more, and one field that is no count
    assert all(family.documentation.endswith(".") for family in families), [
        family.name for family in families if not family.documentation
    ]


def test_a_histogram_adds_up() -> None:
    metrics = Metrics()
    metrics.turn_seconds = Histogram((0.01, 0.1))
    for seconds in (0.005, 0.02, 0.03, 4.0):
        metrics.turn_seconds.observe(seconds)
    lines = expose({}, metrics).decode().splitlines()
    assert [line for line in lines if line.startswith("qiyu_turn_seconds")] == [
        'qiyu_turn_seconds_bucket{le="0.01"} 1.0',
        'qiyu_turn_seconds_bucket{le="0.1"} 3.0',
        'qiyu_turn_seconds_bucket{le="+Inf"} 4.0',
        "qiyu_turn_seconds_count 4.0",
        "qiyu_turn_seconds_sum 4.055",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="prometheus-client reads /proc")
def test_the_process_is_there_too() -> None:
    families = {family.name: family for family in text_string_to_metric_families(expose({}, Metrics()).decode())}
    assert families["process_resident_memory_bytes"].samples[0].value > 1_000_000
    assert families["process_open_fds"].samples[0].value >= 3


def test_the_docs_list_every_count_with_its_help() -> None:
    metrics = Metrics()
    helps = helps_of_counts()
    counters = {f"`qiyu_{name}_total`": text for name, text in helps.items() if isinstance(getattr(metrics, name), int)}
    assert dict(table("metrics.md", "## What is counted")) == counters
    histograms = {
        f"`qiyu_{name}`": text for name, text in helps.items() if isinstance(getattr(metrics, name), Histogram)
    }
    assert dict(table("metrics.md", "## How long things take")) == histograms


def test_a_server_that_nobody_scrapes_does_not_load_the_library() -> None:
    code = "import sys, qiyu.app; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
