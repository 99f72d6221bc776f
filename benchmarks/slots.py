"""How full a whole run keeps the slots of the window, what it asks of Bedrock, and how much of a core it takes.

    PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/slots.py [name ...]

The names are those of ``ROWS``; without one all are run, about half an hour. Each is a run of the DAG ``embed_media`` in a
real Airflow (scheduler, triggerer, dag-processor and API server as processes of their own, SQLite, LocalExecutor), with a
real S3 server (SeaweedFS). Bedrock is the simulator, also a process of its own; the durations of its jobs are real seconds.
They are log-normal, and in proportion to the size of the image, as those of a model are to its media: that is what
"longest first" goes by. Perfect packing is the lower bound of any schedule: the sum of the durations that the jobs had,
divided by the slots, or the longest of them.
"""

from __future__ import annotations

import io
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import log
from pathlib import Path

import boto3
import psutil
import yaml
from PIL import Image

from bedrock_simulator.admin import SimulatorAdmin
from benchmarks.results import Result, machine, record
from local_stack.airflow import LocalAirflow
from local_stack.stack import LocalStack

MODEL = "marengo-2-7"
BYTES_PER_SECOND = 1000
SIGMA = 0.75
SEED = 11


@dataclass(frozen=True, slots=True)
class Row:
    """What is run, and what is to be reached."""

    name: str
    jobs: int
    window: int
    mean_seconds: float
    utilisation: float | None
    """At least this."""
    other_calls: float
    """Calls of Bedrock other than Start for each finished job: at most this."""
    jobs_per_core_hour: float | None = None

    @property
    def durations(self) -> list[float]:
        """The seconds that each job takes, log-normal with this very mean; none at all where the mean is 0."""
        if not self.mean_seconds:
            return [0.0] * self.jobs
        drawn = random.Random(SEED)
        raw = [drawn.lognormvariate(log(self.mean_seconds) - SIGMA**2 / 2, SIGMA) for _ in range(self.jobs)]
        scale = self.mean_seconds * self.jobs / sum(raw)
        return [max(0.3, scale * one) for one in raw]


ROWS = (
    Row("30 slots, 300 jobs of 60 s", 300, 30, 60.0, utilisation=0.98, other_calls=1.0),
    Row("30 slots, 2,000 jobs of 5.6 s", 2000, 30, 5.6, utilisation=0.95, other_calls=0.5, jobs_per_core_hour=19_400),
    Row("300 slots, 3,000 jobs of 60 s", 3000, 300, 60.0, utilisation=None, other_calls=0.1, jobs_per_core_hour=19_400),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run took."""

    submitting_seconds: float
    """From the first Start that was accepted to the end of the last job."""
    perfect_seconds: float
    """The least that its jobs would have taken, with the durations that they had."""
    run_seconds: float
    """From the trigger to the end of the run."""
    starts: int
    other_calls: int
    cpu_seconds: float
    simulator_cpu_seconds: float
    charges: int


def main() -> None:
    """Run the rows that are named, or all."""
    wanted = sys.argv[1:]
    for row in ROWS:
        if not wanted or any(name in row.name for name in wanted):
            with tempfile.TemporaryDirectory(prefix="slots-") as directory:
                keep(row, run(row, Path(directory)))


def run(row: Row, directory: Path) -> Measured:
    """Embed a library once."""
    per_megabyte = 1e6 / BYTES_PER_SECOND if row.mean_seconds else 0.0
    settings = {"seconds_per_job": 0.0, "seconds_per_megabyte": per_megabyte, "max_in_flight": row.window}
    with LocalStack(directory / "stack").start(simulator_settings=settings) as stack:
        upload(stack, row.durations)
        environment = {**stack.environment, "MEDIA_EMBEDDINGS_CONFIG": str(configuration(directory, row))}
        environment["AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION"] = "False"
        with LocalAirflow(directory / "airflow", environment=environment) as airflow:
            airflow.api.wait_for_dag("embed_media")
            print(f"{row.name}: {sum(row.durations) / row.window:.0f} s and more", flush=True)
            simulator = psutil.Process(stack.simulator.process.pid)
            cpu, simulator_cpu, began = cpu_seconds(airflow), sum(simulator.cpu_times()[:2]), time.monotonic()
            airflow.api.trigger("embed_media", run_id="slots")
            ended = airflow.api.wait_for_run("embed_media", "slots", seconds=7200)
            run_seconds = time.monotonic() - began
            if ended.state != "success":
                raise RuntimeError(airflow.api.describe("embed_media", "slots"))
            cpu, simulator_cpu = cpu_seconds(airflow) - cpu, sum(simulator.cpu_times()[:2]) - simulator_cpu
        admin = SimulatorAdmin(stack.simulator.endpoint_url)
        calls = Counter({name: sum(by_code.values()) for name, by_code in admin.calls().items()})
        starts = calls.pop("StartAsyncInvoke")
        return Measured(
            *submitting_and_perfect_seconds(stack, row.window),
            run_seconds,
            starts,
            calls.total(),
            cpu,
            simulator_cpu,
            len(admin.charges()),
        )


def keep(row: Row, measured: Measured) -> None:
    """Record what was measured."""
    others = {
        "command": f"PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/slots.py '{row.name}'",
        "conditions": f"{machine()}; real Airflow, S3 server and durations; Bedrock simulated",
    }
    results = []
    if row.utilisation is not None:
        results.append(
            Result.at_least(
                row.utilisation,
                name=f"slot utilisation, {row.name}",
                value=measured.perfect_seconds / measured.submitting_seconds,
                unit="of perfect packing",
                baseline=f"perfect packing: {measured.perfect_seconds:.1f} s; this run: {measured.submitting_seconds:.1f} s",
                limit="1: a slot is empty until a look at the list shows it to be",
                **others,
            )
        )
    results.append(
        Result.at_most(
            1.05,
            name=f"Start calls for each finished job, {row.name}",
            value=measured.starts / row.jobs,
            unit="calls",
            baseline="1: every job has to be started once",
            limit="1",
            **others,
        )
    )
    polled = sum(max(1.0, one / 15) for one in row.durations) / row.jobs
    results.append(
        Result.at_most(
            row.other_calls,
            name=f"other Bedrock calls for each finished job, {row.name}",
            value=measured.other_calls / row.jobs,
            unit="calls",
            baseline=f"one Get for each job every 15 s: {polled:.2f}",
            limit="0: nothing tells that a job has ended but a call",
            **others,
        )
    )
    if row.jobs_per_core_hour is not None:
        results.append(
            Result.at_least(
                row.jobs_per_core_hour,
                name=f"jobs an hour for each core used, {row.name}",
                value=row.jobs / measured.cpu_seconds * 3600,
                unit="jobs",
                baseline="19,400 jobs an hour on 768 cores: 25",
                limit=f"{measured.cpu_seconds:.0f} s of CPU in a run of {measured.run_seconds:.0f} s; the simulator took "
                f"{measured.simulator_cpu_seconds:.0f} s",
                **others,
            )
        )
    record(*results)
    print(measured, flush=True)


def upload(stack: LocalStack, durations: list[float]) -> None:
    """Create an image for each duration, of a size in proportion to it."""
    stack.seaweedfs.create_buckets("slots-media", "slots-embeddings")
    picture = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 30)).save(picture, "PNG")
    client = boto3.client("s3", **_client_arguments(stack))

    def put(number: int) -> None:
        # What follows the end of an image is not looked at.
        content = picture.getvalue().ljust(int(durations[number] * BYTES_PER_SECOND), b"\0")
        client.put_object(Bucket="slots-media", Key=f"library/{number:06d}.png", Body=content)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(len(durations))))


def _client_arguments(stack: LocalStack) -> dict[str, str]:
    environment = stack.environment
    return {
        "endpoint_url": environment["AWS_ENDPOINT_URL_S3"],
        "region_name": environment["AWS_DEFAULT_REGION"],
        "aws_access_key_id": environment["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": environment["AWS_SECRET_ACCESS_KEY"],
    }


def configuration(directory: Path, row: Row) -> Path:
    """Write the file of libraries; everything that is not named has its default."""
    path = directory / "libraries.yaml"
    library = {
        "sources": ["s3://slots-media/library/"],
        "region": "us-east-1",
        "model": MODEL,
        "model_lifecycle": "warn",
        "tables": "s3://slots-embeddings/tables",
        "work": "s3://slots-embeddings/work",
        "schedule": None,
        "max_in_flight": row.window,
        "processing": "async",
    }
    path.write_text(yaml.safe_dump({"libraries": {"slots": library}}))
    return path


def cpu_seconds(airflow: LocalAirflow) -> float:
    """Return the CPU time of all processes of Airflow, and of those of their children that have ended."""
    total = 0.0
    for one in airflow.processes():
        times = psutil.Process(one.pid).cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def submitting_and_perfect_seconds(stack: LocalStack, window: int) -> tuple[float, float]:
    """Return the seconds from the first submission to the last end, and the least in which the slots can do the same."""
    client = boto3.client(
        "bedrock-runtime",
        **{**_client_arguments(stack), "endpoint_url": stack.environment["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"]},
    )
    pages = client.get_paginator("list_async_invokes").paginate(PaginationConfig={"PageSize": 1000})
    jobs = [one for page in pages for one in page["asyncInvokeSummaries"]]
    durations = [(one["endTime"] - one["submitTime"]).total_seconds() for one in jobs]
    seconds = max(one["endTime"] for one in jobs) - min(one["submitTime"] for one in jobs)
    return seconds.total_seconds(), max(sum(durations) / window, *durations)


if __name__ == "__main__":
    main()
