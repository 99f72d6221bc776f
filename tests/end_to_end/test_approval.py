"""A person is asked before a run spends more than a set amount. The tests build on each other in the order of the file."""

from __future__ import annotations

from typing import Any

import pytest

from bedrock_simulator.admin import SimulatorAdmin
from local_stack.airflow import QUICK_RECOVERY, LocalAirflow
from local_stack.processes import wait_until
from local_stack.stack import LocalStack
from tests.end_to_end.conftest import Project, Run

LIBRARIES = """\
libraries:
  demo:
    sources: [s3://demo-media/library/]
    region: us-east-1
    model: marengo-3-0
    tables: s3://demo-embeddings/tables
    work: s3://demo-embeddings/work
    schedule: null
    poll_interval_seconds: 1
    deadline_hours: 0.1
    prices: {marengo-3-0: {text_request: 2.0}}
    approve_above_usd: 3
  impatient:
    sources: [s3://demo-media/other/]
    region: us-east-1
    model: marengo-3-0
    tables: s3://demo-embeddings/tables
    work: s3://demo-embeddings/work
    schedule: null
    poll_interval_seconds: 1
    approve_above_usd: 0
    approval_timeout_hours: 0.001
"""
TASK = "approve_cost"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    configuration = tmp_path_factory.mktemp("configuration") / "libraries.yaml"
    configuration.write_text(LIBRARIES)
    with LocalStack(tmp_path_factory.mktemp("stack")) as stack:
        stack.start(simulator_settings={"seconds_per_job": 1.0})
        stack.seaweedfs.create_buckets("demo-media", "demo-embeddings")
        environment = {**stack.environment, **QUICK_RECOVERY, "MEDIA_EMBEDDINGS_CONFIG": str(configuration)}
        with LocalAirflow(tmp_path_factory.mktemp("airflow"), environment=environment) as airflow:
            for dag_id in ("embed_media", "embed_media_impatient"):
                airflow.api.wait_for_dag(dag_id)
                airflow.api.unpause(dag_id)
            yield Project(stack, airflow, SimulatorAdmin(stack.simulator.endpoint_url), configuration.parent)


def put(project, key, text):
    project.stack.seaweedfs.client().put_object(Bucket="demo-media", Key=key, Body=text.encode())


def tries_seen(project, run_id) -> int:
    """Return how many processes of the task the scheduler has seen end."""
    log = (project.airflow.home / "processes" / "scheduler.log").read_text()
    seen = (line for line in log.splitlines() if "Received executor event" in line and f"run_id='{run_id}'" in line)
    return len({line.partition("try_number=")[2].partition(",")[0] for line in seen if f"task_id='{TASK}'" in line})


def wait_for_the_question(project, run_id, *, tries: int = 1) -> dict[str, Any]:
    def waits() -> bool:
        instances = project.airflow.api.task_instances("embed_media", run_id)
        return [one.state for one in instances if one.task_id == TASK] == ["awaiting_input"]

    wait_until(waits, seconds=120, what="the task waited for an answer")
    # An answer before the scheduler has seen the end of the process that asked is taken for a task that was killed, and
    # asked again. Nobody is as quick as a test.
    wait_until(lambda: tries_seen(project, run_id) >= tries, seconds=60, what="the scheduler saw the question asked")
    path = f"/dags/embed_media/dagRuns/{run_id}/taskInstances/{TASK}/-1/hitlDetails"
    question: dict[str, Any] = project.airflow.api.request("GET", path).json()
    return question


def answered(project, run_id, option) -> Run:
    path = f"/dags/embed_media/dagRuns/{run_id}/taskInstances/{TASK}/-1/hitlDetails"
    project.airflow.api.request("PATCH", path, json={"chosen_options": [option], "params_input": {}})
    finished = project.airflow.api.wait_for_run("embed_media", run_id, seconds=180)
    return Run(project, finished, tuple(project.airflow.api.task_instances("embed_media", run_id)))


def test_above_the_amount_a_person_is_shown_the_estimate_and_a_no_submits_nothing_and_fails_nothing(project):
    put(project, "library/a.txt", "A red boat.")
    put(project, "library/b.txt", "A blue door.")
    project.airflow.api.trigger("embed_media", run_id="asked")
    question = wait_for_the_question(project, "asked")

    assert question["subject"] == "Library demo: approve about 4.00 USD?"
    assert "| text | 2 | 0.0 | 4.00 |" in question["body"]
    assert project.charges() == []

    rejected = answered(project, "asked", "Reject")
    assert rejected.succeeded, rejected.describe()
    assert project.charges() == []
    assert rejected.report["reasons"] == {"deferred": {"not_approved": 2}}
    assert rejected.report["balanced"]
    assert "rejected the estimated cost of 4.00 USD" in rejected.report["notices"][0]
    assert rejected.states("embed.start_async_invoke") == rejected.states("invoke.invoke_model") == ["skipped"]


def test_cleared_it_asks_again_and_a_yes_embeds(project):
    project.airflow.api.clear("embed_media", "asked", [TASK])
    assert wait_for_the_question(project, "asked", tries=2)["responded_at"] is None

    approved = answered(project, "asked", "Approve")
    assert approved.succeeded, approved.describe()
    assert approved.report["totals"]["embedded"] == len(project.charges()) == 2
    assert approved.report["notices"] == []
    assert {row["actual_cost_usd"] for row in invocations(project)} == {2.0}


def invocations(project) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (
        project.table("s3://demo-embeddings/tables/invocations").to_pyarrow_dataset().to_table().to_pylist()
    )
    return rows


def test_up_to_the_amount_nobody_is_asked(project):
    put(project, "library/c.txt", "A green hill.")
    run = project.run()

    assert run.succeeded, run.describe()
    assert run.report["totals"]["embedded"] == 1
    assert "nobody is asked" in project.airflow.api.log("embed_media", run.dag_run.run_id, TASK)


def test_no_answer_in_time_is_a_no(project):
    put(project, "other/a.txt", "A grey sky.")
    charges = project.charges()
    run = project.run("embed_media_impatient")

    assert run.succeeded, run.describe()
    assert run.states(TASK) == ["success"]
    assert project.charges() == charges
    log = project.airflow.api.log("embed_media_impatient", run.dag_run.run_id, "report")
    assert "nobody approved the estimated cost of 0.00 USD in time" in log
