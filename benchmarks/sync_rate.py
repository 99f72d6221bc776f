"""How much of a quota the synchronous processing uses, and what a call costs in CPU.

    PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/sync_rate.py [calls a second]

1,000 texts and then 1,000 images go through ``BedrockInvokeModelBatchOperator`` as a task runs it: with intents, a look at
each source and each answer kept on a real S3 server (SeaweedFS). Bedrock is the simulator, a process of its own: it throttles
above so many calls a second (default 25) and lets a second's calls through at once. The operator is told nothing of that.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
from PIL import Image

from bedrock_async_invoke.clients import AwsParameters, Clients
from bedrock_simulator.admin import SimulatorAdmin
from benchmarks.results import Result, machine, record
from local_stack.stack import LocalStack

MODEL = "us.twelvelabs.marengo-embed-2-7-v1:0"
REQUESTS = 1000
QUOTA = 25.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What a batch took."""

    seconds: float
    calls: int
    throttled: int
    cpu_seconds: float
    charges: int


class TaskInstance(SimpleNamespace):
    def xcom_push(self, key: str, value: Any) -> None: ...


def main() -> None:
    """Send both batches, and record what share of the quota was used."""
    quota = float(sys.argv[1]) if len(sys.argv) > 1 else QUOTA
    with tempfile.TemporaryDirectory(prefix="sync-rate-") as directory:
        os.environ["AIRFLOW_HOME"] = directory
        with LocalStack(Path(directory) / "stack").start(simulator_settings={"invokes_per_second": quota}) as stack:
            os.environ.update(stack.environment)
            stack.seaweedfs.create_buckets("media", "work")
            for name, make in (("texts", text), ("images", image)):
                keep(name, quota, run(stack, name, make))


def run(stack: LocalStack, name: str, make: Callable[[Clients, int], dict[str, Any]]) -> Measured:
    """Send one batch."""
    # Airflow reads its home when it is imported.
    from bedrock_async_invoke.invoke_operators import BedrockInvokeModelBatchOperator

    clients = Clients(AwsParameters(None, "us-east-1"))
    with ThreadPoolExecutor(8) as pool:
        lines = list(pool.map(lambda number: make(clients, number), range(REQUESTS)))
    manifest_uri = f"s3://work/runs/{name}/{name}-001/requests.jsonl"
    clients.write(manifest_uri, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
    task = BedrockInvokeModelBatchOperator(
        task_id="invoke",
        aws_conn_id=None,
        region_name="us-east-1",
        model_id=MODEL,
        manifest_uri=manifest_uri,
        intents_uri="s3://work/tables/intents",
    )
    admin = SimulatorAdmin(stack.simulator.endpoint_url)
    before, charged = admin.calls().get("InvokeModel", {}), len(admin.charges())
    cpu, began = sum(psutil.Process().cpu_times()[:2]), time.monotonic()
    summary = task.execute({"ti": TaskInstance(dag_id="d", run_id="r", task_id="t", map_index=-1)})
    seconds, cpu = time.monotonic() - began, sum(psutil.Process().cpu_times()[:2]) - cpu
    if summary["started"] != REQUESTS:
        raise RuntimeError(f"not every request was answered: {summary}")
    calls = {code: number - before.get(code, 0) for code, number in admin.calls()["InvokeModel"].items()}
    return Measured(
        seconds, sum(calls.values()), calls.get("ThrottlingException", 0), cpu, len(admin.charges()) - charged
    )


def keep(name: str, quota: float, measured: Measured) -> None:
    """Record what was measured."""
    # A second's calls come on top, since the quota lets them through at once.
    allowed = (REQUESTS - quota) / quota
    others = {
        "command": f"PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/sync_rate.py {quota:g}",
        "conditions": f"{machine()}; real S3 server and operator; Bedrock simulated",
    }
    record(
        Result.at_least(
            0.9,
            name=f"share of the quota used, {REQUESTS:,} {name} through InvokeModel",
            value=allowed / measured.seconds,
            unit="of the rate",
            baseline=f"{quota:g} calls a second: {allowed:.1f} s; this: {measured.seconds:.1f} s",
            limit=f"1; {measured.throttled} of {measured.calls} calls were throttled, {measured.charges} paid for",
            **others,
        ),
        Result.at_most(
            0.05,
            name=f"CPU for each request, {name} through InvokeModel",
            value=measured.cpu_seconds / REQUESTS,
            unit="s",
            baseline="four calls each: the look at its source, the intent, InvokeModel, the answer",
            limit=f"0; {measured.cpu_seconds:.1f} s of CPU in all, so one core bounds a task to "
            f"{REQUESTS / measured.cpu_seconds:.0f} requests a second",
            **others,
        ),
    )


def text(clients: Clients, number: int) -> dict[str, Any]:
    """Return the request of a text."""
    content = f"A boat, number {number}, on a green lake.".encode()
    return _request(clients, f"text-{number}", content, {"inputType": "text", "inputText": content.decode()})


def image(clients: Clients, number: int) -> dict[str, Any]:
    """Return the request of an image that Bedrock reads from S3."""
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), (number % 256, number // 4 % 256, 30)).save(picture, "PNG")
    location = {"s3Location": {"uri": f"s3://media/image-{number}"}}
    return _request(clients, f"image-{number}", picture.getvalue(), {"inputType": "image", "mediaSource": location})


def _request(clients: Clients, name: str, content: bytes, model_input: dict[str, Any]) -> dict[str, Any]:
    uri = f"s3://media/{name}"
    clients.write(uri, content)
    return {
        "request_id": name,
        "model_input": model_input,
        "output_uri": f"s3://work/outputs/{name}",
        "source_uri": uri,
        "source_etag": clients.etag(uri),
    }


if __name__ == "__main__":
    main()
