from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import (
    assert_nothing_is_left,
)
from town import Town


@pytest.fixture
def town() -> Iterator[Town]:
    town = Town.make()
    yield town
    town.harness.settle()
    assert_nothing_is_left(town.harness)
