"""Many seeds, none with a fault; and rules that are broken on purpose, each of which is noticed."""

from __future__ import annotations

import time
from typing import Final

import pytest

from simulate.run import PLANTS, Run

SEEDS: Final = 200
SECONDS: Final = 40.0
"""However slow the machine is: at least `AT_LEAST` seeds, and then no more than fit."""
AT_LEAST: Final = 10
PLANTED_SEEDS: Final = 40
"""Within which each broken rule has to be noticed."""


def test_whatever_goes_wrong_the_promises_are_kept() -> None:
    until = time.monotonic() + SECONDS
    sent = 0
    for seed in range(1, SEEDS + 1):
        if seed > AT_LEAST and time.monotonic() > until:
            break
        verdict = Run(seed, seconds=25.0).run()
        assert verdict.faults == [], f"again: cd tests && python -m simulate --seconds 25 --seed {seed}"
        sent += verdict.summary["sent"]
    assert sent > AT_LEAST * 200


@pytest.mark.parametrize("plant", PLANTS)
def test_a_broken_rule_is_noticed(plant: str) -> None:
    assert any(Run(seed, plant).run().faults for seed in range(1, PLANTED_SEEDS + 1))


def test_a_seed_is_the_same_run_each_time() -> None:
    first, second = (Run(7, seconds=15.0).run() for _ in range(2))
    assert first.log == second.log
    assert first.summary == second.summary
    assert len(first.log) > 3
