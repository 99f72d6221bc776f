"""What it costs when a tenth of all calls of Bedrock fail at random: calls, retries, and how full the window stays.

    PYTHONPATH=include:plugins .venv/bin/python benchmarks/failing_calls.py [jobs] [window]

Both runs are made one after the other against the same simulator and S3 server: one undisturbed, which is the baseline, and
one in which each call fails with ``InternalServerException`` with a probability of 0.1. Times are a tenth of what Bedrock's
would be: jobs of 6 s, a list that is trusted after 3 s, looks at most every 1.5 s.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bedrock_async_invoke.clients import AwsParameters, Clients
from bedrock_async_invoke.submitter import ManifestSubmission, Submission, submit_blocking
from bedrock_async_invoke.watcher import Watch, Watcher, watch_blocking
from bedrock_simulator.admin import SimulatorAdmin
from local_stack.stack import LocalStack

MODEL = "twelvelabs.marengo-embed-2-7-v1:0"
SECONDS_PER_JOB = 6.0
FAULT = {"kind": "error", "code": "InternalServerException", "rate": 0.1, "seed": 7}


@dataclass(frozen=True)
class Result:
    """What a run took."""

    completed: int
    charged: int
    succeeded_calls: int
    failed_calls: int
    utilisation: float
    """Of the window, from the first submission to the last end."""


def main() -> None:
    """Make both runs, and print the ratios as a Markdown table."""
    jobs, window = (int(text) for text in (*sys.argv[1:], "200", "20")[:2])
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalStack(Path(directory)).start(
            simulator_settings={"seconds_per_job": SECONDS_PER_JOB, "max_in_flight": 10 * window}
        ) as stack,
    ):
        os.environ.update(stack.environment)
        stack.seaweedfs.create_buckets("media", "work")
        undisturbed = run(stack, "undisturbed", jobs, window)
        SimulatorAdmin(stack.simulator.endpoint_url).faults(FAULT)
        disturbed = run(stack, "disturbed", jobs, window)
    print(f"{jobs} jobs of {SECONDS_PER_JOB:g} s, window {window}, {os.cpu_count()} cores\n")
    print("| | undisturbed | a tenth of the calls fails | ratio | reach |\n|---|---|---|---|---|")
    print(f"| completed | {undisturbed.completed} | {disturbed.completed} | | all |")
    print(f"| charged | {undisturbed.charged} | {disturbed.charged} | | once each |")
    calls = disturbed.succeeded_calls / undisturbed.succeeded_calls
    print(f"| successful calls | {undisturbed.succeeded_calls} | {disturbed.succeeded_calls} | {calls:.3f} | 1.05 |")
    retried = disturbed.failed_calls / undisturbed.succeeded_calls
    print(f"| failed calls | {undisturbed.failed_calls} | {disturbed.failed_calls} | {retried:.3f} | 0.15 |")
    full = disturbed.utilisation / undisturbed.utilisation
    print(f"| utilisation | {undisturbed.utilisation:.3f} | {disturbed.utilisation:.3f} | {full:.3f} | 0.90 |")


def run(stack: LocalStack, name: str, jobs: int, window: int) -> Result:
    """Submit and wait for so many jobs."""
    clients = Clients(AwsParameters(None, "us-east-1"))
    manifest_uri = f"s3://work/{name}/requests.jsonl"
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 20, 20)).save(picture, "PNG")
    clients.write("s3://media/a.png", picture.getvalue())
    lines = [
        {
            "request_id": f"{name}-{number}",
            "model_input": {"inputType": "image", "mediaSource": {"s3Location": {"uri": "s3://media/a.png"}}},
            "output_uri": f"s3://work/outputs/{name}-{number}",
        }
        for number in range(jobs)
    ]
    clients.write(manifest_uri, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
    before, charged = _calls(stack), len(SimulatorAdmin(stack.simulator.endpoint_url).charges())
    submission = Submission(
        MODEL,
        manifest_uri,
        max_in_flight=window,
        poll_interval=1.5,
        intents_uri="s3://work/intents",
        submitter_uri="s3://work/submitter",
        list_lag_seconds=3.0,
        adopt_since=time.time() - 60,
    )
    submit_blocking(ManifestSubmission(clients, submission))
    watcher = Watcher(clients, Watch(manifest_uri=manifest_uri, poll_interval=1.5, timeout_seconds=600))
    watch_blocking(watcher)
    found = _calls(stack) - before
    mine = [one for one in watcher.statuses if one.ended_at and one.submitted_at]
    seconds = _seconds(max(one.ended_at or "" for one in mine)) - _seconds(min(one.submitted_at or "" for one in mine))
    return Result(
        completed=watcher.summary()["completed"],
        charged=len(SimulatorAdmin(stack.simulator.endpoint_url).charges()) - charged,
        succeeded_calls=sum(number for (_, code), number in found.items() if not code),
        failed_calls=sum(number for (_, code), number in found.items() if code),
        utilisation=jobs * SECONDS_PER_JOB / (window * seconds),
    )


def _calls(stack: LocalStack) -> Counter[tuple[str, str]]:
    return Counter(
        {
            (operation, code): number
            for operation, by_code in SimulatorAdmin(stack.simulator.endpoint_url).calls().items()
            for code, number in by_code.items()
        }
    )


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    main()
