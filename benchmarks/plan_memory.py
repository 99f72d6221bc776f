"""Peak memory and XCom size of listing, planning and reporting a library of many new objects.

    PYTHONPATH=include python benchmarks/plan_memory.py 100000

The S3 server is real (SeaweedFS), but for the pages of the listing: these are made up by a stand-in for ListObjectsV2, since
creating as many objects takes longer than everything else. Each step runs in a process of its own, as a task does.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3

from local_stack.stack import LocalStack
from media_embeddings.library import Library
from media_embeddings.listing import Listing, list_media
from media_embeddings.planner import PlanOptions, make_plan
from media_embeddings.reporting import report_run
from media_embeddings.run_folder import RunFolder
from media_embeddings.storage import Storage

LIBRARY = Library(
    name="large",
    sources=("s3://large-media/library/",),
    region="us-east-1",
    model="marengo-3-0",
    tables="s3://large-vectors/tables",
    work="s3://large-vectors/work",
)
FOLDER = RunFolder(LIBRARY.work, LIBRARY.name, "run")


class ListingClient:
    """An S3 client whose listing has as many objects as wanted; everything else is the real client's."""

    def __init__(self, client: Any, objects: int) -> None:
        self._client, self._objects = client, objects

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def head_bucket(self, **_: Any) -> dict[str, Any]:
        return {}

    def list_objects_v2(self, **asked: Any) -> dict[str, Any]:
        now = datetime(2026, 11, 1, tzinfo=UTC)
        start = int(asked.get("ContinuationToken", 0))
        if "StartAfter" in asked:
            start = bisect_right(range(self._objects), asked["StartAfter"], key=key_of)
        end = min(start + 1000, self._objects)
        return {
            "Contents": [
                {
                    "Key": key_of(number),
                    "ETag": f'"{number:032x}"',
                    "Size": 10_000_000 + number,
                    "LastModified": now,
                }
                for number in range(start, end)
            ],
            "IsTruncated": end < self._objects,
            "NextContinuationToken": str(end),
        }


def key_of(number: int) -> str:
    return f"library/2026/{number // 1000:05d}/interview with guest {number:08d}.mp4"


def storage(environment: dict[str, str]) -> Storage:
    session = boto3.Session(environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"], None, "us-east-1")
    return Storage.of_session(session, session.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL_S3"]))


def list_step(environment: dict[str, str], objects: int) -> Any:
    reached = storage(environment)
    listing = list_media(replace(reached, client=ListingClient(reached.client, objects)), LIBRARY, FOLDER.listing_uri)
    return listing.as_dict()


def plan_step(environment: dict[str, str], listing: dict[str, Any]) -> Any:
    plan, uri = make_plan(storage(environment), LIBRARY, "run", Listing.from_dict(listing), PlanOptions())
    return {"manifests": list(plan.manifests), "plan_uri": uri}


def report_step(environment: dict[str, str], listing: dict[str, Any], plan_uri: str) -> Any:
    return report_run(storage(environment), LIBRARY, FOLDER, listing, plan_uri).totals


def in_a_process(step: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """Return what a step returns, its seconds and its peak memory in MiB."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(sender, step, arguments))
    process.start()
    answer: tuple[Any, float, float] = receiver.recv()
    process.join()
    return answer


def _measured(sender: Any, step: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    start = time.perf_counter()
    value = step(*arguments)
    seconds = time.perf_counter() - start
    sender.send((value, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main(objects: int) -> None:
    with tempfile.TemporaryDirectory() as directory, LocalStack(Path(directory)) as stack:
        stack.seaweedfs.create_buckets("large-media", "large-vectors")
        environment = stack.environment
        print("| step | seconds | peak MiB | XCom bytes |\n|---|---|---|---|")
        listing = show("list_media", *in_a_process(list_step, environment, objects))
        plan = show("plan", *in_a_process(plan_step, environment, listing), xcom="manifests")
        show("report", *in_a_process(report_step, environment, listing, plan["plan_uri"]))


def show(name: str, value: Any, seconds: float, mebibytes: float, *, xcom: str | None = None) -> Any:
    size = len(json.dumps(value[xcom] if xcom else value))
    print(f"| {name} | {seconds:.1f} | {mebibytes:.0f} | {size} |", flush=True)
    return value


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
