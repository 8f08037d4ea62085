"""The command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.clients import READ_BYTES
from bench.plan import GENERATORS, WIRES, WORKLOADS
from bench.rivals import PEERS

OUTPUT: Final = Path(__file__).parent / ".results"


def parse(arguments: list[str]) -> argparse.Namespace:
    """A run, or with `report` before them, the report on an earlier one."""
    if arguments[:1] == ["report"]:
        return _report_parser().parse_args(arguments[1:], argparse.Namespace(report=True))
    return _run_parser().parse_args(arguments, argparse.Namespace(report=False))


def _run_parser() -> argparse.ArgumentParser:
    run = argparse.ArgumentParser(
        prog="python -m bench",
        description="Load qiyu and its like, and compare what it costs.",
        epilog="`python -m bench report -h`: tables and plots of an earlier run.",
    )
    run.add_argument("--quick", action="store_true", help="small workloads and short runs: under two minutes")
    run.add_argument("--workloads", type=_some_of(WORKLOADS), default=WORKLOADS, help=f"of {', '.join(WORKLOADS)}")
    run.add_argument("--wires", type=_some_of(WIRES), default=WIRES, help=f"of {', '.join(WIRES)}")
    run.add_argument("--variant", default="", help="only variants with this text in their name, such as 1×500")
    run.add_argument("--seconds", type=float, help="to measure in each run")
    run.add_argument("--warm-up", type=float, help="seconds before that")
    run.add_argument("--rounds", type=int, help="3 or more make medians worth something")
    run.add_argument("--peers", type=_peers, default=(), help=f"all, or of {', '.join(PEERS)}; installed when needed")
    run.add_argument("--no-floor", action="store_true", help="without the C server")
    run.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout of qiyu, measured beside it")
    run.add_argument("--pure", action="store_true", help="qiyu without its accelerator, measured beside it")
    run.add_argument(
        "--generator", choices=GENERATORS, default="python", help="for rooms: clients in Python, in C, or each in turn"
    )
    run.add_argument(
        "--read-bytes", type=int, default=READ_BYTES, metavar="N",
        help="clients in rooms read no more at once, as small clients do: with 2048, a few packets; by default 65536",
    )  # fmt: skip
    run.add_argument(
        "--single-writes",
        action="store_true",
        help="clients in rooms write each ACK alone, not those of a read together",
    )
    run.add_argument("--database", default="", metavar="URL", help="an empty database for qiyu; by default SQLite")
    run.add_argument(
        "--set", action="append", default=[], type=_setting, metavar="SECTION__KEY=VALUE", help="a setting of qiyu's"
    )
    run.add_argument("--output", type=Path, default=OUTPUT, help="folder for results and logs")
    return run


def _report_parser() -> argparse.ArgumentParser:
    report = argparse.ArgumentParser(prog="python -m bench report", description="Tables and plots of an earlier run.")
    report.add_argument("results", type=Path, help="results.json of that run")
    report.add_argument("--into", type=Path, metavar="PAGE", help="put them into this page, and the plots beside it")
    return report


def _some_of(names: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        chosen = tuple(text.split(","))
        if unknown := set(chosen) - set(names):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: expected some of {', '.join(names)}")
        return chosen

    return parse


def _peers(text: str) -> tuple[str, ...]:
    return tuple(PEERS) if text == "all" else _some_of(tuple(PEERS))(text)


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or "__" not in name:
        raise argparse.ArgumentTypeError(f"{text!r}: expected SECTION__KEY=VALUE")
    return name.upper(), value
