from __future__ import annotations

import fcntl
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from local_stack import demo as demo_module
from local_stack.airflow_api import DagRun, TaskInstance
from local_stack.demo import Demo
from local_stack.processes import LocalStackError
from local_stack.progress import Progress
from media_embeddings.run_folder import RunFolder
from media_embeddings.storage import ObjectNotFoundError

RUN = DagRun("embed_media", "demo__1", "failed", datetime(2026, 1, 1, tzinfo=UTC), None)


def task_instance(task_id: str, state: str | None, map_index: int = -1) -> TaskInstance:
    return TaskInstance(task_id, map_index, state, None, 2, 3, None, None, None, None)


class FakeStorage:
    """Holds what a run has left; no more of a storage is asked for."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self._objects = objects

    def read(self, uri: str) -> bytes:
        if uri not in self._objects:
            raise ObjectNotFoundError(uri)
        return self._objects[uri]


class FakeApi:
    def task_instances(self, _dag_id: str, _run_id: str) -> list[TaskInstance]:
        return [task_instance("list_media", "success"), task_instance("report", "failed")]

    def describe(self, _dag_id: str, _run_id: str) -> str:
        return "  list_media: success\n  report: failed"

    def log(self, _dag_id: str, _run_id: str, task_id: str, **_options: Any) -> str:
        return f"{task_id} said: the bucket does not exist"


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def demo(tmp_path: Path, said: io.StringIO) -> Demo:
    return Demo(tmp_path, Progress(said))


@pytest.fixture
def airflow(tmp_path: Path) -> Any:
    return SimpleNamespace(api=FakeApi(), home=tmp_path / "airflow", url="http://127.0.0.1:1", password="p")


def outcome(
    demo: Demo, airflow: Any, monkeypatch: pytest.MonkeyPatch, run_state: str, report: dict[str, Any] | None
) -> bool:
    folder = RunFolder(demo.library.work, demo.library.name, RUN.run_id)
    objects = (
        {}
        if report is None
        else {folder.report_uri: json.dumps(report).encode(), folder.report_markdown_uri: b"# Report"}
    )
    monkeypatch.setattr(demo, "_storage", lambda: FakeStorage(objects))
    monkeypatch.setattr(demo, "_show_table", lambda _storage, uri: demo._progress.line(f"table {uri}"))
    return demo._show_outcome(airflow, DagRun(RUN.dag_id, RUN.run_id, run_state, None, None))


@pytest.mark.parametrize(
    ("run_state", "balanced", "good"), [("success", True, True), ("success", False, False), ("failed", True, False)]
)
def test_the_demo_is_good_only_if_the_run_succeeded_and_its_books_balance(
    demo: Demo, airflow: Any, monkeypatch: pytest.MonkeyPatch, run_state: str, balanced: bool, good: bool
) -> None:
    assert outcome(demo, airflow, monkeypatch, run_state, {"balanced": balanced}) is good


def test_the_tables_of_both_models_are_shown(
    demo: Demo, airflow: Any, monkeypatch: pytest.MonkeyPatch, said: io.StringIO
) -> None:
    outcome(demo, airflow, monkeypatch, "success", {"balanced": True})

    for model in ("marengo-2-7", "marengo-3-0"):
        assert f"table s3://demo-embeddings/tables/embeddings/{model}" in said.getvalue()


def test_a_run_without_a_report_is_explained(
    demo: Demo, airflow: Any, monkeypatch: pytest.MonkeyPatch, said: io.StringIO
) -> None:
    assert outcome(demo, airflow, monkeypatch, "failed", None) is False

    for expected in ("demo__1 ended in state failed", "report: failed", "the bucket does not exist", str(airflow.home)):
        assert expected in said.getvalue()


def test_only_one_command_at_a_time_starts_or_stops_things(demo: Demo, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LocalStackError, match="another command"):
            demo.run()
        with pytest.raises(LocalStackError, match="another command"):
            demo.stop()


def test_what_the_demo_did_not_start_it_does_not_stop(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stopped: list[str] = []
    monkeypatch.setattr(demo.stack, "stop", lambda: stopped.append("stack"))
    (tmp_path / "started.json").write_text('["airflow"]')

    assert demo.stop() == ["airflow"]
    assert stopped == []
    assert demo.stop() == []


def test_task_instances_are_summed_up_in_one_line() -> None:
    instances = [
        task_instance("plan", "success"),
        task_instance("wait", "deferred", 0),
        task_instance("wait", "deferred", 1),
        task_instance("report", None),
    ]

    assert demo_module._describe(instances) == "1/4 tasks: wait deferred x2"


def test_an_excerpt_shows_one_row_an_object_with_the_first_numbers_of_its_vector() -> None:
    rows = pd.DataFrame(
        {
            "media_uri": ["s3://b/l/a b.mp4", "s3://b/l/a b.mp4", "s3://b/l/c.png"],
            "start_sec": [6.0, 0.0, None],
            "end_sec": [12.0, 6.0, None],
            "embedding_option": ["audio", "visual-image", None],
            "embedding": [[0.5] * 8, [0.25] * 8, [-0.125] * 8],
        }
    )

    lines = demo_module._excerpt(rows, "s3://b/l/").splitlines()

    assert len(lines) == 3
    assert "a b.mp4" in lines[1]
    assert "[+0.250, +0.250, +0.250, +0.250, ... 8]" in lines[1]
    assert "[-0.125, -0.125, -0.125, -0.125, ... 8]" in lines[2]
