"""Operator and sensor in a mapped task group, run by ``dag.test()`` with a database of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.integration.bedrock_async_invoke.conftest import MODEL, accepted

ROOT = Path(__file__).parents[3]

DAG_FILE = """
import json
from datetime import datetime
from airflow.sdk import DAG, task, task_group
from bedrock_async_invoke.invoke_operators import BedrockInvokeModelBatchOperator
from bedrock_async_invoke.operators import BedrockStartAsyncInvokeOperator
from bedrock_async_invoke.sensors import BedrockAsyncInvokeSensor

AWS = {"aws_conn_id": None, "region_name": "us-east-1"}

with DAG("embed", schedule=None, start_date=datetime(2026, 1, 1), params={"model": "%(model)s"}) as dag:

    @task
    def plan():
        return json.loads(%(manifests)r)

    @task_group
    def embed(manifest_uri):
        start = BedrockStartAsyncInvokeOperator(
            task_id="start", model_id="{{ params.model }}", manifest_uri=manifest_uri, max_in_flight=2, poll_interval=1,
            deferrable=True, map_index_template="{{ task.batch_name }}", **AWS,
        )
        wait = BedrockAsyncInvokeSensor(
            task_id="wait", manifest_uri=manifest_uri, poke_interval=1, initial_delay=0.1, deferrable=True,
            map_index_template="{{ task.batch_name }}", **AWS,
        )
        start >> wait

    @task_group
    def invoke(manifest_uri):
        BedrockInvokeModelBatchOperator(
            task_id="invoke", model_id="us.{{ params.model }}", manifest_uri=manifest_uri,
            map_index_template="{{ task.batch_name }}", **AWS,
        )

    %(group)s.expand(manifest_uri=plan())

if __name__ == "__main__":
    run = dag.test()
    instances = run.get_task_instances()
    print("RESULT", json.dumps({
        "state": str(run.state),
        "names": sorted({one.rendered_map_index for one in instances if one.rendered_map_index}),
    }))
"""


def run_dag(batches, group, tmp_path) -> dict:
    dags = tmp_path / "dags"
    dags.mkdir()
    file = dags / "embed.py"
    file.write_text(
        DAG_FILE % {"model": MODEL, "manifests": json.dumps([one.manifest_uri for one in batches]), "group": group}
    )
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'include'}:{ROOT / 'plugins'}",
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
    }
    for command in ([sys.executable, "-m", "airflow", "db", "migrate"], [sys.executable, str(file)]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
    [line] = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    result = json.loads(line.removeprefix("RESULT "))
    assert result["state"] == "success", done.stdout[-6000:]
    return result


def test_a_mapped_task_group_runs_deferred_in_dag_test(batch, simulator, tmp_path):
    simulator.settings(seconds_per_job=0.5)
    batches = [batch(3), batch(3)]
    assert run_dag(batches, "embed", tmp_path)["names"] == ["image-001"]
    for pictures in batches:
        assert accepted(simulator, pictures) == [0, 1, 2]
        assert {one["status"] for one in pictures.lines("statuses.jsonl").values()} == {"Completed"}


def test_a_mapped_task_group_sends_its_batches_in_dag_test(batch, simulator, tmp_path):
    batches = [batch(3), batch(2)]
    assert run_dag(batches, "invoke", tmp_path)["names"] == ["image-001"]
    sources = [charge["source"] for charge in simulator.charges() if charge["operation"] == "InvokeModel"]
    for pictures, count in zip(batches, (3, 2), strict=True):
        assert {pictures.uri(number) for number in range(count)} <= set(sources)
        assert {one["status"] for one in pictures.lines("statuses.jsonl").values()} == {"Completed"}
