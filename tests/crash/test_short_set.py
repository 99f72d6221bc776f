"""The kill points that ``make test`` runs every time."""

from __future__ import annotations

import pytest

from tests.crash.points import SHORT_SET, Point, named
from tests.crash.world import World


@pytest.mark.parametrize("point", [named(name) for name in SHORT_SET], ids=SHORT_SET)
def test_a_run_ends_as_if_nothing_had_been_killed(
    crash_world: World, point: Point, capsys: pytest.CaptureFixture[str]
) -> None:
    result = crash_world.survive(point)

    with capsys.disabled():
        print(f"\n{result}")
