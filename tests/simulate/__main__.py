"""`python -m simulate`: many seeds, or one again."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from os import cpu_count

from simulate.run import PLANTS, Run, Verdict


def run(seed: int, plant: str, seconds: float) -> Verdict:
    try:
        return Run(seed, plant, seconds=seconds).run()
    except Exception as exc:  # noqa: BLE001  # one seed's crash is a finding, and the others go on
        fault = "".join(traceback.format_exception(exc))
        return Verdict(seed, [fault], {}, Counter(), [])


def echo(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (1)")
    parser.add_argument("--seed", type=int, help="this one alone, with the log of what happened")
    parser.add_argument("--plant", choices=PLANTS, default="", help="break a rule on purpose")
    parser.add_argument("--seconds", type=float, default=40.0, help="of trouble, for each (40)")
    parser.add_argument("--workers", type=int, default=cpu_count() or 1)
    options = parser.parse_args()
    if options.seed is not None:
        verdict = run(options.seed, options.plant, options.seconds)
        echo("\n".join([*verdict.log, "", *verdict.faults]))
        echo(str(verdict.summary))
        sys.exit(bool(verdict.faults))
    started = time.monotonic()
    summary: Counter[str] = Counter()
    happened: Counter[str] = Counter()
    failing = []
    seeds = range(options.first, options.first + options.seeds)
    n = len(seeds)
    with ProcessPoolExecutor(options.workers) as pool:
        for verdict in pool.map(run, seeds, [options.plant] * n, [options.seconds] * n, chunksize=4):
            summary.update(verdict.summary)
            happened.update(verdict.happened)
            if verdict.faults:
                failing.append(verdict)
                echo(f"seed {verdict.seed}: {len(verdict.faults)} faults, first: {verdict.faults[0]}")
                plant = f" --plant '{options.plant}'" if options.plant else ""
                echo(f"  again: python -m simulate --seed {verdict.seed}{plant}")
    echo(f"seeds     {len(seeds)} in {time.monotonic() - started:.0f} s, {len(failing)} with faults")
    echo(f"happened  {', '.join(f'{n} × {name}' for name, n in sorted(happened.items()))}")
    echo(f"seen      {', '.join(f'{name} {n}' for name, n in summary.items())}")
    sys.exit(bool(failing))


if __name__ == "__main__":
    main()
