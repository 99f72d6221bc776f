from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.points import Point
from tests.crash.record import record_of_this_code
from tests.crash.world import World, world


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    record = record_of_this_code()
    if record.results:
        terminalreporter.write_line(f"\nWhat is known for this code, also in {record.report_path}:\n")
        terminalreporter.write_line(record.report_path.read_text())


def _points(session: pytest.Session) -> list[Point]:
    """Return the points that are to be run."""
    wanted = (item for item in session.items if item.get_closest_marker("skip") is None)
    points = (getattr(getattr(item, "callspec", None), "params", {}).get("point") for item in wanted)
    return [point for point in points if point is not None]


@pytest.fixture(scope="session")
def crash_world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Give everything that runs, with the libraries of the points that are to be run in this session."""
    libraries = {point.library: point.step.library for point in _points(request.session)}
    with world(tmp_path_factory.mktemp("crash"), libraries) as running:
        yield running
        running.check_charges()
