"""A submitter that is taken for dead, and comes back after its successor has begun."""

from __future__ import annotations

import pytest

from tests.crash.points import STOPPED_POINTS, Point
from tests.crash.world import World


@pytest.mark.parametrize("point", STOPPED_POINTS, ids=[point.name for point in STOPPED_POINTS])
def test_a_submitter_that_comes_back_starts_nothing_that_its_successor_has_started(
    crash_world: World, point: Point, capsys: pytest.CaptureFixture[str]
) -> None:
    result = crash_world.survive(point)

    with capsys.disabled():
        print(f"\n{result}")
