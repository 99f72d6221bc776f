from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import psutil
import pytest

from local_stack.airflow import QUICK_RECOVERY, ROLES, LocalAirflow
from local_stack.processes import DeadlineError, LocalStackError, wait_until

TINY_DAG = """
from __future__ import annotations

import os
import time
from datetime import datetime

from airflow.sdk import DAG, Param, task

with DAG("tiny", schedule=None, start_date=datetime(2026, 1, 1), params={"numbers": Param([1, 2], type="array")}):

    @task
    def listed(params=None) -> list[int]:
        return params["numbers"]

    @task(map_index_template="number {{ number }}")
    def doubled(number: int) -> int:
        print("doubling", number)
        if number < 0:
            raise ValueError(f"{number} is negative")
        return 2 * number

    @task
    def total(numbers) -> int:
        import media_embeddings

        return sum(numbers)

    total(doubled.expand(number=listed()))

with DAG("slow", schedule=None, start_date=datetime(2026, 1, 1)):

    @task
    def waits() -> None:
        print("environment", os.environ["GREETING"], flush=True)
        time.sleep(300)

    waits()
"""
DEADLINE = 180


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    dags = tmp_path_factory.mktemp("dags")
    (dags / "tiny.py").write_text(TINY_DAG)
    (dags / "broken.py").write_text("from airflow.sdk import DAG\nimport no_such_module\n")
    plugins = tmp_path_factory.mktemp("plugins")
    airflow = LocalAirflow(
        tmp_path_factory.mktemp("airflow"),
        dags_folder=dags,
        plugins_folder=plugins,
        environment={**QUICK_RECOVERY, "GREETING": "hello"},
    )
    try:
        airflow.start(seconds=DEADLINE)
        for dag_id in ("tiny", "slow"):
            airflow.api.wait_for_dag(dag_id)
            airflow.api.unpause(dag_id)
        yield airflow
    finally:
        airflow.stop()


def test_a_run_with_mapped_tasks_succeeds(airflow: LocalAirflow) -> None:
    api = airflow.api

    run_id = api.trigger("tiny", {"numbers": [3, 4]}, run_id="by+hand~1")
    run = api.wait_for_run("tiny", run_id, seconds=DEADLINE)

    assert run.state == "success", api.describe("tiny", run_id)
    instances = api.task_instances("tiny", run_id)
    assert {(one.task_id, one.map_index, one.state, one.label) for one in instances} == {
        ("listed", -1, "success", None),
        ("doubled", 0, "success", "number 3"),
        ("doubled", 1, "success", "number 4"),
        ("total", -1, "success", None),
    }
    assert api.xcom("tiny", run_id, "total") == 14
    assert "doubling 4" in api.log("tiny", run_id, "doubled", map_index=1)


def test_a_failed_run_can_be_explained_and_cleared(airflow: LocalAirflow) -> None:
    api = airflow.api
    run_id = api.trigger("tiny", {"numbers": [1, -1]})

    assert api.wait_for_run("tiny", run_id, seconds=DEADLINE).state == "failed"
    assert "doubled[number -1]: failed (try 1)" in api.describe("tiny", run_id)
    assert "-1 is negative" in api.log("tiny", run_id, "doubled", map_index=1, errors=True)

    assert api.clear("tiny", run_id, only_failed=True) >= 1
    assert api.wait_for_run("tiny", run_id, seconds=DEADLINE).state == "failed"
    (again,) = (one for one in api.task_instances("tiny", run_id) if (one.task_id, one.map_index) == ("doubled", 1))
    assert again.try_number == 2


def test_a_dag_that_can_not_be_imported_is_named(airflow: LocalAirflow) -> None:
    (broken,) = airflow.api.import_errors()

    assert broken.filename.endswith("broken.py")
    assert "no_such_module" in broken.stack_trace
    with pytest.raises(DeadlineError, match=r"(?s)waited 0 s in vain for DAG broken.*no_such_module"):
        airflow.api.wait_for_dag("broken", seconds=0)


def test_a_call_that_airflow_refuses_says_what_airflow_said(airflow: LocalAirflow) -> None:
    with pytest.raises(LocalStackError, match=r"404 to GET /dags/none/dagRuns/x: .*not found"):
        airflow.api.run("none", "x")


def test_everything_listens_on_this_machine_only(airflow: LocalAirflow) -> None:
    listening = {
        connection.laddr.ip
        for process in airflow.processes()
        for connection in psutil.Process(process.pid).net_connections("inet")
        if connection.status == "LISTEN"
    }

    assert listening == {"127.0.0.1"}


def test_a_second_start_takes_what_runs(airflow: LocalAirflow) -> None:
    before = {role: part.pid for role, part in airflow.parts.items()}

    airflow.start()

    assert {role: part.pid for role, part in airflow.parts.items()} == before


def test_a_part_that_was_killed_is_started_again_and_goes_on(airflow: LocalAirflow) -> None:
    api = airflow.api
    run_id = api.trigger("slow")
    wait_until(
        lambda: (
            "environment hello" in api.log("slow", run_id, "waits")
            if api.task_instances("slow", run_id)[0].state == "running"
            else False
        ),
        seconds=DEADLINE,
        what="the slow task runs",
    )
    roles = Counter(process.role for process in airflow.processes())
    assert {*ROLES, "worker", "task"} <= set(roles)
    assert all(roles[role] == 1 for role in (*ROLES, "task"))

    airflow.kill_part("scheduler")

    assert {"scheduler", "worker", "task"}.isdisjoint(process.role for process in airflow.processes())
    airflow.start_part("scheduler")
    airflow.wait_until_healthy("scheduler", seconds=DEADLINE)
    # Its task instance runs into the heartbeat's timeout; others don't wait for that.
    run_id = api.trigger("tiny")
    assert api.wait_for_run("tiny", run_id, seconds=DEADLINE).state == "success"


def test_a_task_goes_on_when_the_scheduler_alone_is_killed(airflow: LocalAirflow) -> None:
    api = airflow.api
    run_id = api.trigger("slow")
    wait_until(
        lambda: api.task_instances("slow", run_id)[0].state == "running", seconds=DEADLINE, what="the slow task runs"
    )

    airflow.kill_alone("scheduler")

    assert not airflow.parts["scheduler"].is_running
    assert {"worker", "task"} <= {process.role for process in airflow.processes()}
    airflow.start_part("scheduler")
    airflow.wait_until_healthy("scheduler", seconds=DEADLINE)
    run_id = api.trigger("tiny")
    assert api.wait_for_run("tiny", run_id, seconds=DEADLINE).state == "success"


def test_a_second_triggerer_works_beside_the_first(airflow: LocalAirflow) -> None:
    airflow.start_part("second-triggerer")

    airflow.wait_until_healthy("second-triggerer", seconds=DEADLINE)

    assert len(airflow.api.live_jobs("TriggererJob")) == 2
    airflow.stop_part("second-triggerer")
    assert airflow.is_running


def test_everything_is_killed_at_once_and_goes_on_after_another_start(airflow: LocalAirflow) -> None:
    airflow.kill()

    assert airflow.processes() == []
    airflow.start(seconds=DEADLINE)
    run_id = airflow.api.trigger("tiny")
    assert airflow.api.wait_for_run("tiny", run_id, seconds=DEADLINE).state == "success"


def test_stopping_leaves_no_process_behind_even_while_a_task_runs(airflow: LocalAirflow) -> None:
    """The last test of this file: the others need what it stops."""
    api = airflow.api
    api.trigger("slow")
    wait_until(
        lambda: any(process.role == "task" for process in airflow.processes()), seconds=DEADLINE, what="a task runs"
    )
    processes = [psutil.Process(process.pid) for process in airflow.processes()]

    airflow.stop()

    assert not [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert airflow.processes() == []
