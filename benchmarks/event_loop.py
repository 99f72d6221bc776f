"""The longest that a callback of this project holds the triggerer's event loop, and what the simulator could do beyond that.

    PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/event_loop.py

Forty batches are submitted and waited for by the real triggers in one event loop, as in a triggerer, against the Bedrock
simulator and a real S3 server. Measured is the CPU time of each callback, after the first batch has gone through alone: what
is imported then is imported once in a triggerer's life. The simulator's own ceiling is what it takes from clients that do
nothing else.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from PIL import Image

from bedrock_async_invoke.triggers import BedrockAsyncInvokeTrigger, BedrockStartAsyncInvokeTrigger
from benchmarks.results import Result, machine, record
from local_stack.stack import LocalStack

MODEL_ID = "twelvelabs.marengo-embed-2-7-v1:0"
BATCHES, JOBS_PER_BATCH = 40, 10
CEILING_STARTS, CEILING_LISTS, CLIENTS = 600, 200, 8
COMMAND = "PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/event_loop.py"


def main() -> None:
    """Measure both."""
    settings = {"seconds_per_job": 5.0, "max_in_flight": 10_000}
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalStack(Path(directory)).start(simulator_settings=settings) as stack,
    ):
        os.environ.update(stack.environment)
        stack.seaweedfs.create_buckets("media", "work")
        picture = io.BytesIO()
        Image.new("RGB", (16, 16), (20, 30, 200)).save(picture, "PNG")
        boto3.client("s3").put_object(Bucket="media", Key="blue.png", Body=picture.getvalue())
        longest = asyncio.run(longest_callback_seconds())
        starts, lists = ceiling()
    record(
        Result.at_most(
            0.1,
            name="longest callback in the event loop",
            value=longest,
            unit="s of CPU",
            baseline="0.1 s: from then on Airflow warns that the event loop was blocked (triggerer's log)",
            limit=f"0; {BATCHES} batches of {JOBS_PER_BATCH} at once",
            command=COMMAND,
            conditions=machine(),
        ),
        Result.at_least(
            60.0,
            name="ceiling of the simulator, Start",
            value=starts,
            unit="calls a second",
            baseline=f"{CLIENTS} threads of boto3 that do nothing else; ten times what the runs of slots.py ask for",
            limit=f"{lists:.0f} lists of 1,000 a second",
            command=COMMAND,
            conditions=machine(),
        ),
    )


async def longest_callback_seconds() -> float:
    """Let the triggers run, and return the most CPU time that a single callback took."""
    await embed(1, "warm-up")
    longest = 0.0
    run: Callable[..., Any] = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        nonlocal longest
        began = time.thread_time()
        run(handle)
        longest = max(longest, time.thread_time() - began)

    asyncio.Handle._run = timed  # type: ignore[method-assign]
    try:
        await embed(BATCHES, "measured")
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
    return longest


async def embed(batches: int, name: str) -> None:
    """Submit batches and wait for them."""
    s3 = boto3.client("s3")

    async def one(number: int) -> None:
        lines = [request_line(f"{name}-{number}-{job}".ljust(32, "x")) for job in range(JOBS_PER_BATCH)]
        key = f"runs/{name}/{number}/requests.jsonl"
        await asyncio.to_thread(s3.put_object, Bucket="work", Key=key, Body="\n".join(lines).encode())
        common = {
            "manifest_uri": f"s3://work/{key}",
            "region_name": "us-east-1",
            "initial_delay": 0.1,
            "aws_conn_id": None,
        }
        start = BedrockStartAsyncInvokeTrigger(
            model_id=MODEL_ID,
            adopt_since=time.time() - 86_400,
            max_in_flight=100,
            intents_uri="s3://work/intents",
            submitter_uri="s3://work/submitter",
            **common,
        )
        wait = BedrockAsyncInvokeTrigger(waiting_since=time.time(), poll_interval=2.0, **common)
        for trigger in (start, wait):
            events = [event async for event in trigger.run()]
            if events[0].payload["status"] != "success":
                raise RuntimeError(events[0].payload["message"])

    await asyncio.gather(*(one(number) for number in range(batches)))


def request_line(request_id: str) -> str:
    """Return a line of a manifest."""
    source = "s3://media/blue.png"
    return json.dumps(
        {
            "request_id": request_id,
            "model_input": {"inputType": "image", "mediaSource": {"s3Location": {"uri": source}}},
            "output_uri": f"s3://work/outputs/{request_id}",
            "source_uri": source,
        }
    )


def ceiling() -> tuple[float, float]:
    """Return how many Start calls and how many lists the simulator takes in a second."""
    client = boto3.client("bedrock-runtime")

    def start(number: int) -> None:
        client.start_async_invoke(
            modelId=MODEL_ID,
            modelInput=json.loads(request_line("x" * 32))["model_input"],
            clientRequestToken=f"ceiling-{number:024d}",
            outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://work/ceiling"}},
        )

    def look(_: int) -> None:
        client.list_async_invokes(maxResults=1000)

    def rate(call: Callable[[int], None], times: int) -> float:
        began = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(call, range(times)))
        return times / (time.monotonic() - began)

    return rate(start, CEILING_STARTS), rate(look, CEILING_LISTS)


if __name__ == "__main__":
    main()
