"""/metrics: the counts, as Prometheus reads them. web/health.py imports this file only when somebody asks.

The server counts in plain integers and lists; prometheus-client's own counters would take a lock for each. So there is
one collector, which reads them all at a scrape.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from qiyu.metrics import Gauge, Histogram, Metrics


def expose(gauges: Mapping[str, Gauge], metrics: Metrics) -> bytes:
    """The page."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Counts(gauges, metrics))
    ProcessCollector(registry=registry)  # on Linux; elsewhere it has nothing to say
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return generate_latest(registry)


class _Counts(Collector):
    def __init__(self, gauges: Mapping[str, Gauge], metrics: Metrics) -> None:
        self._gauges = gauges
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for name, gauge in self._gauges.items():
            yield GaugeMetricFamily(f"qiyu_{name}", gauge.help, gauge.read())
        helps = helps_of_counts()
        for field in fields(self._metrics):
            count = getattr(self._metrics, field.name)
            if isinstance(count, int):
                yield CounterMetricFamily(f"qiyu_{field.name}", helps[field.name], count)
            elif isinstance(count, Histogram):
                yield _histogram(f"qiyu_{field.name}", helps[field.name], count)


def _histogram(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    bounds = [*map(str, histogram.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
    return HistogramMetricFamily(name, text, buckets, histogram.total)


@cache
def helps_of_counts() -> dict[str, str]:
    """The sentence below each field of `Metrics`, which Python keeps in the source alone."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(Metrics)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    helps = {}
    for statement, below in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            helps[statement.target.id] = _text(below)
    return helps


def _text(statement: ast.stmt) -> str:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return inspect.cleandoc(text).replace("\n", " ")
        case _:
            return ""
