"""`python -m bench`."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from bench import machine, options, plan, report, run, servers
from bench.rivals import PEERS


def main() -> None:
    """Run and report, or report only."""
    arguments = options.parse(sys.argv[1:])
    if arguments.report:
        report.write(run.Results.load(arguments.results), arguments.results.parent, arguments.into)
        return
    if sys.platform != "linux":
        raise SystemExit("a run needs Linux, for epoll, /proc and processor affinity")
    results = run.Results(run.about(sys.argv[1:]))
    output: Path = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    (output / ".gitignore").write_text("*\n")
    _run(arguments, results, output)
    report.write(results, output)
    for failure in results.failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    if not results.is_sound:
        raise SystemExit(1)


def _run(arguments: Namespace, results: run.Results, output: Path) -> None:
    files = machine.raise_file_limit()
    wanted = plan.quick() if arguments.quick else plan.full(files)
    seconds, warm_up = arguments.seconds or wanted.span.seconds, arguments.warm_up or wanted.span.warm_up
    span = replace(
        wanted.span,
        seconds=seconds,
        warm_up=warm_up,
        read_bytes=arguments.read_bytes,
        single_writes=arguments.single_writes,
    )
    wanted = replace(
        plan.with_generator(wanted, arguments.generator),
        span=span,
        rounds=arguments.rounds or wanted.rounds,
    )
    wanted, left_out = plan.chosen(wanted, arguments.workloads, arguments.variant, files)
    results.notes.extend(left_out)
    users = max((workload.connections for workload in wanted.workloads), default=1)
    kinds = _kinds(arguments, users, results, output)
    machine.pin_generator()  # not before: what was compiled and installed may use every core
    todo = run.steps(wanted, kinds, arguments.wires)
    run.Runner(wanted, results).run(todo, lambda: results.save(output / "results.json"))


def _kinds(arguments: Namespace, users: int, results: run.Results, output: Path) -> list[servers.Kind]:
    settings = dict(arguments.set)
    if arguments.database:
        settings["DATABASE__URL"] = arguments.database
        results.notes.append("qiyu's database is a server: what that uses is not in the figures")
    kinds = [servers.qiyu("qiyu", None, settings, users, output)]
    results.about["accelerator"] = servers.accelerator(None)
    if arguments.pure:
        kinds.append(servers.qiyu("qiyu in pure Python", None, settings, users, output, pure=True))
    if arguments.against is not None:
        kinds.append(servers.qiyu(f"qiyu in {arguments.against}", arguments.against, settings, users, output))
    if not arguments.no_floor:
        floors = servers.floors(output)
        kinds.extend(floors)
        if not floors:
            results.notes.append("no C compiler, so no floor")
    for name in arguments.peers:
        peer = PEERS[name]
        if missing := peer.missing():
            results.notes.append(f"{name}: left out, needs {missing}")
            continue
        try:
            command = peer.command()
        except subprocess.CalledProcessError as failure:
            results.notes.append(f"{name}: left out, could not be installed ({failure})")
            continue
        kinds.append(servers.peer(name, command, output, peer.speaks))
    return kinds


if __name__ == "__main__":
    main()
