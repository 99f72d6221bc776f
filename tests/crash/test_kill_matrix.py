"""Kill a process at every step of a run: the run ends well, nothing is paid twice, the tables are the same.

``make test-crash`` runs it; ``CRASH_PART=2/4`` runs a share of it. What has passed for the same code is skipped, unless
``CRASH_AGAIN=1``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.crash.points import POINTS, Point, in_order, part
from tests.crash.record import PointResult, record_of_this_code
from tests.crash.world import World


def _parameters() -> Iterator[object]:
    passed = set() if os.environ.get("CRASH_AGAIN") == "1" else record_of_this_code().passed
    skip = pytest.mark.skip(reason="has passed for this code; CRASH_AGAIN=1 runs it again")
    for point in part(in_order(POINTS), os.environ.get("CRASH_PART")):
        yield pytest.param(point, id=point.name, marks=[skip] if point.name in passed else [])


@pytest.mark.parametrize("point", _parameters())
def test_a_run_ends_as_if_nothing_had_been_killed(
    crash_world: World, point: Point, capsys: pytest.CaptureFixture[str]
) -> None:
    record = record_of_this_code()
    try:
        result = crash_world.survive(point)
    except Exception as error:
        result = PointResult(point.name, passed=False, problem=str(error).partition("\n")[0])
        raise
    finally:
        record.keep(result)
        with capsys.disabled():
            print(f"\n{result}")
