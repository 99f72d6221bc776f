"""The whole project as real processes: Airflow's four, the S3 server and the Bedrock simulator."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from bedrock_simulator.admin import SimulatorAdmin
from local_stack.airflow import QUICK_RECOVERY, REPOSITORY, LocalAirflow
from local_stack.airflow_api import DagRun, TaskInstance
from local_stack.sample_library import BUCKET, PREFIX, SampleLibrary
from local_stack.stack import LocalStack

LIBRARIES = """\
libraries:
  demo:
    sources: [s3://demo-media/library/]
    region: us-east-1
    model: marengo-2-7
    model_lifecycle: warn
    next_model: marengo-3-0
    tables: s3://demo-embeddings/tables
    work: s3://demo-embeddings/work
    schedule: null
    batch_size: 12
    max_in_flight: 10
    poll_interval_seconds: 1
    deadline_hours: 0.1
    invoke_timeout_seconds: 10
    tags: [demo]
  broken:
    sources: [s3://demo-media/broken/]
    region: us-east-1
    model: marengo-2-7
    tables: s3://demo-embeddings/tables
    work: s3://demo-embeddings/work
    batch_size: none
  texts:
    sources: [s3://other-media/texts/]
    region: us-east-1
    model: marengo-3-0
    tables: s3://demo-embeddings/tables
    work: s3://demo-embeddings/work
    schedule: null
    poll_interval_seconds: 1
"""
# Python runs it at the start of every process: each one says itself what it is and whether it can import the domain.
PROBE = """
import importlib.util, json, os, pathlib, sys
answer = {"command": sys.orig_argv, "found": importlib.util.find_spec("media_embeddings") is not None}
(pathlib.Path(__file__).parent / f"{os.getpid()}.json").write_text(json.dumps(answer))
"""
CONFIGURATION_LINE_OF_BROKEN = 23
MODEL, NEXT_MODEL = "marengo-2-7", "marengo-3-0"
EMBEDDINGS = f"s3://demo-embeddings/tables/embeddings/{MODEL}"
NEXT_EMBEDDINGS = f"s3://demo-embeddings/tables/embeddings/{NEXT_MODEL}"


@dataclass
class Project:
    """The running project, and its runs through Airflow's REST API."""

    stack: LocalStack
    airflow: LocalAirflow
    simulator: SimulatorAdmin
    probes: Path
    """Where every process of Airflow has left its answer to the probe."""
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def run(self, dag_id: str = "embed_media", seconds: float = 180, **params: Any) -> Run:
        run_id = f"test-{next(self._numbers)}"
        self.airflow.api.trigger(dag_id, params, run_id=run_id)
        finished = self.airflow.api.wait_for_run(dag_id, run_id, seconds=seconds)
        return Run(self, finished, tuple(self.airflow.api.task_instances(dag_id, run_id)))

    def put(self, key: str, content: bytes) -> None:
        self.stack.seaweedfs.client().put_object(Bucket=BUCKET, Key=PREFIX + key, Body=content)

    def table(self, uri: str) -> DeltaTable:
        environment = self.stack.environment
        options = {
            "AWS_ENDPOINT_URL": environment["AWS_ENDPOINT_URL_S3"],
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": environment["AWS_ACCESS_KEY_ID"],
            "AWS_SECRET_ACCESS_KEY": environment["AWS_SECRET_ACCESS_KEY"],
            "AWS_REGION": environment["AWS_DEFAULT_REGION"],
        }
        return DeltaTable(uri, storage_options=options)

    def ledger(self, model: str = MODEL) -> dict[str, dict[str, Any]]:
        rows = self.table("s3://demo-embeddings/tables/media").to_pyarrow_dataset().to_table().to_pylist()
        return {row["media_uri"]: row for row in rows if row["model"] == model}

    def charges(self) -> list[str]:
        return [charge["token"] for charge in self.simulator.charges()]


@dataclass(frozen=True)
class Run:
    """A finished run with its task instances."""

    project: Project
    dag_run: DagRun
    instances: tuple[TaskInstance, ...]

    @property
    def succeeded(self) -> bool:
        return self.dag_run.state == "success"

    def states(self, task_id: str) -> list[str | None]:
        return [one.state for one in self.instances if one.task_id == task_id]

    def labels(self, task_id: str) -> set[str | None]:
        return {one.label for one in self.instances if one.task_id == task_id}

    @property
    def report(self) -> dict[str, Any]:
        import json

        folder = f"work/runs/demo/{self.dag_run.run_id}/report.json"
        client = self.project.stack.seaweedfs.client()
        value: dict[str, Any] = json.loads(client.get_object(Bucket="demo-embeddings", Key=folder)["Body"].read())
        return value

    def describe(self) -> str:
        return self.project.airflow.api.describe(self.dag_run.dag_id, self.dag_run.run_id)


@pytest.fixture(scope="session")
def sample_library(tmp_path_factory) -> SampleLibrary:
    return SampleLibrary(tmp_path_factory.mktemp("sample-library"))


@pytest.fixture(scope="session")
def project(tmp_path_factory, sample_library):
    configuration: Path = tmp_path_factory.mktemp("configuration") / "libraries.yaml"
    configuration.write_text(LIBRARIES)
    with LocalStack(tmp_path_factory.mktemp("stack")) as stack:
        stack.start(simulator_settings={"seconds_per_job": 1.0})
        stack.seaweedfs.create_buckets(BUCKET, "demo-embeddings", "other-media")
        sample_library.upload(stack.seaweedfs.client())
        environment = {**stack.environment, **QUICK_RECOVERY, "MEDIA_EMBEDDINGS_CONFIG": str(configuration)}
        probes: Path = tmp_path_factory.mktemp("probes")
        (probes / "sitecustomize.py").write_text(PROBE)
        home = tmp_path_factory.mktemp("airflow")
        with LocalAirflow(home, python_path=(REPOSITORY / "include", probes), environment=environment) as airflow:
            airflow.api.wait_for_dag("maintain_tables")
            for dag_id in ("embed_media", "embed_media_texts"):
                airflow.api.wait_for_dag(dag_id)
                airflow.api.unpause(dag_id)
            yield Project(stack, airflow, SimulatorAdmin(stack.simulator.endpoint_url), probes)
