"""A whole run over an unchanged library of 1,000,000 objects, against the bare paginated listing of the same bucket.

    PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/unchanged_library.py [objects]

The run is what the tasks `list_media`, `plan` and `report` of `embed_media` do, each in a new process as a task is one, and the
start of that process counts; Airflow's own scheduling of the three is left out, and the mapped tasks between them are skipped,
since there is no batch. The bare listing is boto3's paginator, in a process whose start does not count. They alternate, three
times; the medians are compared.

Real are the S3 server (SeaweedFS) with ledger, listing, plan and report, and the wire between client and server. Simulated are
the pages of the listing: a million objects take too long to create, so that a server of the benchmark's own sends them (see
``listing_server.py``), both for the run and for the bare listing. Its ceiling is measured and shown: the same pages, fetched
by the same chain of calls and not parsed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any

import boto3
import pyarrow as pa

from benchmarks.listing_server import etag_of, key_of, size_of
from benchmarks.processes import in_new_process, peak_mebibytes
from benchmarks.results import Result, machine, record
from local_stack.stack import LocalStack
from media_embeddings.identity import canonical_parameters, embedding_key, request_id
from media_embeddings.library import Library
from media_embeddings.listing import Listing, list_media
from media_embeddings.media import MediaObject, MediaType
from media_embeddings.planner import PlanOptions, make_plan
from media_embeddings.reporting import report_run
from media_embeddings.run_folder import RunFolder
from media_embeddings.schemas import LEDGER_SCHEMA
from media_embeddings.storage import Storage
from media_embeddings.tables import Tables

COMMAND = "PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/unchanged_library.py"
BUCKET, PREFIX = "large-media", "library/"
LIBRARY = Library(
    name="large",
    sources=(f"s3://{BUCKET}/{PREFIX}",),
    region="us-east-1",
    model="marengo-3-0",
    tables="s3://large-vectors/tables",
    work="s3://large-vectors/work",
    # Its objects are only listed: there is nothing to read of them.
    read_headers=False,
)
MOST_RATIO, MOST_MEBIBYTES = 1.5, 1024
ROUNDS = 3
_ROWS_A_COMMIT = 50_000


@dataclass(frozen=True)
class Servers:
    """How the two servers are reached."""

    environment: dict[str, str]
    listing_port: int

    def client(self, endpoint: str) -> Any:
        """Return an S3 client as the tasks have one."""
        keys = (self.environment["AWS_ACCESS_KEY_ID"], self.environment["AWS_SECRET_ACCESS_KEY"])
        return boto3.Session(*keys, None, "us-east-1").client("s3", endpoint_url=endpoint)

    @property
    def pages(self) -> Any:
        """Return a client of the server that sends the pages of the listing."""
        return self.client(f"http://127.0.0.1:{self.listing_port}")

    @property
    def storage(self) -> Storage:
        """Return the storage of everything else."""
        keys = (self.environment["AWS_ACCESS_KEY_ID"], self.environment["AWS_SECRET_ACCESS_KEY"])
        return Storage.of_session(
            boto3.Session(*keys, None, "us-east-1"), self.client(self.environment["AWS_ENDPOINT_URL_S3"])
        )


class TwoServersClient:
    """An S3 client that asks one server for listings and the other one for everything else."""

    def __init__(self, pages: Any, others: Any) -> None:
        self._pages, self._others = pages, others

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pages if name in {"list_objects_v2", "head_bucket", "meta"} else self._others, name)


@dataclass(frozen=True)
class Measured:
    """What a step took in a process of its own."""

    value: Any
    seconds: float
    """Of the step alone."""
    seconds_with_start: float
    cpu_seconds: float
    peak_mebibytes: float


def in_a_process(step: Callable[..., Any], *arguments: Any) -> Measured:
    """Run a step in a new process and measure it."""
    start = time.perf_counter()
    value, seconds, cpu, peak = in_new_process(_measured, step, arguments)
    return Measured(value, seconds, time.perf_counter() - start, cpu, peak)


def _measured(step: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, float, float, float]:
    start, before = time.perf_counter(), time.process_time()
    value = step(*arguments)
    seconds, cpu = time.perf_counter() - start, time.process_time() - before
    return value, seconds, cpu, peak_mebibytes()


def bare_listing(servers: Servers) -> int:
    """List as boto3's paginator does."""
    pages = servers.pages.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=PREFIX)
    return sum(len(page["Contents"]) for page in pages)


def only_fetched(servers: Servers, objects: int) -> int:
    """Fetch the pages one after the other, and parse nothing."""
    connection = HTTPConnection("127.0.0.1", servers.listing_port)
    size = 0
    for begin in range(0, objects, 1000):
        connection.request("GET", f"/{BUCKET}?list-type=2&continuation-token={begin}")
        size += len(connection.getresponse().read())
    return size


def list_step(servers: Servers, run: str) -> dict[str, Any]:
    """Do what the task `list_media` does."""
    storage = servers.storage
    client: Any = TwoServersClient(servers.pages, storage.client)
    folder = RunFolder(LIBRARY.work, LIBRARY.name, run)
    return list_media(replace(storage, client=client), LIBRARY, folder.listing_uri).as_dict()


def plan_step(servers: Servers, run: str, listing: dict[str, Any]) -> tuple[str, int]:
    """Do what the task `plan` does, and return the plan's URI and how many batches are to be started."""
    plan, uri = make_plan(servers.storage, LIBRARY, run, Listing.from_dict(listing), PlanOptions())
    return uri, len(plan.batches)


def report_step(servers: Servers, run: str, listing: dict[str, Any], plan_uri: str) -> dict[str, int]:
    """Do what the task `report` does, and return the books."""
    folder = RunFolder(LIBRARY.work, LIBRARY.name, run)
    report = report_run(servers.storage, LIBRARY, folder, listing, plan_uri)
    assert report.succeeded, report.problems
    return report.totals


def whole_run(servers: Servers, run: str, objects: int) -> dict[str, Measured]:
    """Run the three steps, and check that the run found everything unchanged."""
    listed = in_a_process(list_step, servers, run)
    planned = in_a_process(plan_step, servers, run, listed.value)
    plan_uri, batches = planned.value
    reported = in_a_process(report_step, servers, run, listed.value, plan_uri)
    assert reported.value["unchanged"] == sum(reported.value.values()) == objects, reported.value
    assert batches == 0, "an unchanged library has nothing to be started"
    return {"list_media": listed, "plan": planned, "report": reported}


def fill_ledger(servers: Servers, objects: int) -> int:
    """Write the rows that merges of all objects would have left, in commits as large as those of large batches."""
    tables = Tables(LIBRARY.tables, servers.storage.table_options)
    parameters = canonical_parameters(LIBRARY.parameters(MediaType.VIDEO))
    for begin in range(0, objects, _ROWS_A_COMMIT):
        numbers = range(begin, min(begin + _ROWS_A_COMMIT, objects))
        tables.update_ledger(_ledger_rows(numbers, parameters), f"fill-{begin}")
    return objects


def _ledger_rows(numbers: range, parameters: str) -> pa.Table:
    then = datetime(2026, 11, 1, tzinfo=UTC)
    media = [MediaObject(BUCKET, key_of(n), etag_of(n), size_of(n), then, MediaType.VIDEO) for n in numbers]
    keys = [embedding_key(LIBRARY.tables, one, LIBRARY.embedding_model.model_id, parameters) for one in media]
    same: dict[str, Any] = {
        "model": LIBRARY.model,
        "media_type": "video",
        "status": "embedded",
        "attempts": 1,
        "first_seen_at": then,
        "last_modified": then,
        "duration_sec": 60.0,
        "segments": 30,
        "parameters": parameters,
        "library": LIBRARY.name,
        "run_id": "fill",
        "updated_at": then,
    }
    columns: dict[str, Any] = {
        "media_uri": [one.uri for one in media],
        "etag": [one.etag for one in media],
        "size_bytes": [one.size_bytes for one in media],
        "embedding_key": keys,
        "request_id": [request_id(key, 1) for key in keys],
        "invocation_arn": [f"arn:aws:bedrock:us-east-1:111122223333:async-invoke/{key[:12]}" for key in keys],
    }
    return pa.table(
        [pa.array(columns.get(field.name, [same.get(field.name)] * len(media)), field.type) for field in LEDGER_SCHEMA],
        schema=LEDGER_SCHEMA,
    )


@contextmanager
def listing_server(objects: int) -> Iterator[int]:
    """Run the server of the pages, and yield its port."""
    script = Path(__file__).with_name("listing_server.py")
    with subprocess.Popen([sys.executable, str(script), str(objects)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def main(objects: int) -> None:
    """Measure, and keep the results."""
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalStack(Path(directory)) as stack,
        listing_server(objects) as port,
    ):
        stack.seaweedfs.create_buckets("large-media", "large-vectors")
        servers = Servers(stack.environment, port)
        filled = in_a_process(fill_ledger, servers, objects)
        print(f"ledger of {objects} rows written in {filled.seconds:.0f} s", flush=True)
        ceiling = in_a_process(only_fetched, servers, objects).seconds
        before = os.getloadavg()[0]
        bare, runs = [], []
        for number in range(ROUNDS):
            listed = in_a_process(bare_listing, servers)
            assert listed.value == objects
            bare.append(listed.seconds)
            runs.append(whole_run(servers, f"run-{number}", objects))
            print(f"bare listing {bare[-1]:.1f} s; {_steps(runs[-1])}", flush=True)
        record(*_results(objects, bare, runs, ceiling, before))


def _steps(run: dict[str, Measured]) -> str:
    return ", ".join(
        f"{name} {one.seconds_with_start:.1f} s ({one.cpu_seconds:.1f} s of CPU, {one.peak_mebibytes:.0f} MiB)"
        for name, one in run.items()
    )


def _results(
    objects: int, bare: list[float], runs: list[dict[str, Measured]], ceiling: float, load: float
) -> tuple[Result, ...]:
    seconds = [sum(one.seconds_with_start for one in run.values()) for run in runs]
    middle = runs[seconds.index(median(seconds))]
    peak = max(one.peak_mebibytes for run in runs for one in run.values())
    conditions = (
        f"{machine()}; load {load:.1f} at the beginning; medians of {ROUNDS} alternating rounds; list_media, plan and report "
        "in a process each, without Airflow's scheduling; listing pages of both by a server of the benchmark's own, everything "
        f"else in SeaweedFS; no batch was planned in any round, so nothing was started. {_steps(middle)}"
    )
    return (
        Result.at_most(
            MOST_RATIO,
            name=f"unchanged library of {objects:,} objects: whole run",
            value=median(seconds) / median(bare),
            unit=f"x the bare listing ({median(seconds):.1f} s)",
            baseline=f"boto3's paginator over the same server: {median(bare):.1f} s",
            limit=f"the same pages fetched one after the other and not parsed: {ceiling:.1f} s",
            command=COMMAND,
            conditions=conditions,
        ),
        Result.at_most(
            MOST_MEBIBYTES,
            name=f"unchanged library of {objects:,} objects: peak memory of a task",
            value=peak,
            unit="MiB",
            baseline=", ".join(f"{name} {max(run[name].peak_mebibytes for run in runs):.0f} MiB" for name in runs[0]),
            limit="1 GiB",
            command=COMMAND,
            conditions=conditions,
        ),
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
