from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.record import PointResult, Record, as_markdown, code_digest

PASSED = PointResult("in-plan-task", passed=True, charges=5, seconds=12.4, retries=1)
FAILED = PointResult("in-merge-all", passed=False, problem="the charges by request id: a|b twice")


def test_what_has_passed_is_known_to_the_next_run(tmp_path: Path) -> None:
    Record(tmp_path / "crash", "this code").keep(PASSED)
    Record(tmp_path / "crash", "this code").keep(FAILED)

    again = Record(tmp_path / "crash", "this code")

    assert again.passed == {"in-plan-task"}
    assert again.results == {one.name: one for one in (PASSED, FAILED)}


def test_the_last_result_of_a_point_counts(tmp_path: Path) -> None:
    record = Record(tmp_path, "this code")
    record.keep(PASSED)
    record.keep(PointResult(PASSED.name, passed=False, problem="not any more"))

    assert record.passed == set()


def test_nothing_is_known_of_other_code(tmp_path: Path) -> None:
    Record(tmp_path, "older code").keep(PASSED)

    assert Record(tmp_path, "this code").results == {}


def test_the_report_is_a_table_with_what_failed_first(tmp_path: Path) -> None:
    record = Record(tmp_path, "this code")
    record.keep(PASSED)
    record.keep(FAILED)

    assert record.report_path.read_text() == as_markdown([PASSED, FAILED])
    assert as_markdown([PASSED, FAILED]).splitlines() == [
        "2 kill points, 1 failed.",
        "",
        "| kill point | charges | seconds until the run ended | retries | |",
        "|---|---|---|---|---|",
        "| in-merge-all | 0 | 0 | 0 | the charges by request id: a/b twice |",
        "| in-plan-task | 5 | 12 | 1 |  |",
    ]


def test_a_result_is_told_in_a_line() -> None:
    assert str(PASSED) == "in-plan-task: 5 charges, the run ended 12 s after the kill, 1 retries"
    assert str(FAILED).endswith("FAILED: the charges by request id: a|b twice")


@pytest.mark.parametrize("file", ["include/a.py", "dags/b.py", "tests/crash/c.py", "include/config/libraries.yaml"])
def test_a_change_of_the_code_is_another_state(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    digests = {code_digest(tmp_path)}
    for content in ("1", "2"):
        path.write_text(content)
        digests.add(code_digest(tmp_path))

    assert len(digests) == 3


def test_what_no_process_reads_is_no_part_of_the_code(tmp_path: Path) -> None:
    before = code_digest(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/guarantees.md").write_text("1")

    assert code_digest(tmp_path) == before
