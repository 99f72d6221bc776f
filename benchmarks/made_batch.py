"""Batches whose invocations have all ended, with outputs as large as wanted, for the benchmarks of merging.

An output is that of a one-hour video of Marengo 2.7: 1,800 rows (600 segments of 6 s, three options) of 1,024 numbers. The
numbers are normally distributed vectors of unit length; they are rendered once, and every output begins at another place
among them, so that nothing repeats within what a compressor looks back on. Sources are small files of which only the ETag
counts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import psutil

from benchmarks.processes import ChildrenWatch, in_new_process, own_cpu_seconds, peak_mebibytes
from local_stack.seaweedfs import SeaweedFS
from media_embeddings.batches import write_batch
from media_embeddings.identity import canonical_parameters
from media_embeddings.library import Library
from media_embeddings.media import MediaObject, MediaType
from media_embeddings.models import model_named
from media_embeddings.planning import PlannedObject
from media_embeddings.run_folder import BatchFolder
from media_embeddings.storage import Storage

MODEL = model_named("marengo-2-7")
BUCKET = "benchmark-vectors"
SEGMENTS, SEGMENT_SECONDS = 600, 6.0
OPTIONS = ("audio", "visual-image", "visual-text")
FORMS: dict[str, Callable[[float], str]] = {
    # As json.dumps writes the float32 numbers of the simulator, and as an encoder that knows of float32 does.
    "17 digits": repr,
    "9 digits": lambda number: f"{number:.9g}",
}
_VECTORS = 2000


@dataclass(frozen=True)
class Server:
    """A SeaweedFS of the benchmark's own."""

    environment: dict[str, str]
    pid: int

    @classmethod
    def of(cls, running: SeaweedFS) -> Server:
        """Return what reaches a running server, with a bucket to write to."""
        running.create_buckets(BUCKET)
        assert running.process.pid is not None
        return cls(running.environment, running.process.pid)

    @property
    def storage(self) -> Storage:
        """Return a storage of its own, as every task makes one."""
        keys = self.environment
        session = boto3.Session(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], None, "us-east-1")
        return Storage.of_session(session, session.client("s3", endpoint_url=keys["AWS_ENDPOINT_URL_S3"]))

    def cpu_seconds(self) -> float:
        """Return the processor time that the server has used."""
        server = psutil.Process(self.pid)
        return sum(sum(one.cpu_times()[:2]) for one in (server, *server.children(recursive=True)))


def seaweedfs(directory: str) -> SeaweedFS:
    """Return a server that is not started yet, and has as much memory and as large volumes as one that is for work."""
    return SeaweedFS(Path(directory), "benchmark", "benchmark-secret", memory_limit="2GiB", volume_mebibytes=8192)


def library(run: str) -> Library:
    """Return a library with tables of its own."""
    return Library(
        name="large",
        sources=(f"s3://{BUCKET}/sources/",),
        region="us-east-1",
        model=MODEL.name,
        tables=f"s3://{BUCKET}/tables/{run}",
        work=f"s3://{BUCKET}/work",
    )


class Outputs:
    """Outputs in one form of their numbers."""

    def __init__(self, form: str) -> None:
        vectors = np.random.default_rng(7).normal(size=(_VECTORS, MODEL.dimension))
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        render = FORMS[form]
        self._vectors = [("[" + ",".join(map(render, vector)) + "]").encode() for vector in vectors.tolist()]

    def content(self, number: int) -> bytes:
        """Return one output."""
        rows = (
            b'{"embedding":%s,"embeddingOption":"%s","startSec":%.1f,"endSec":%.1f}'
            % (
                self._vectors[(number * 389 + place) % _VECTORS],
                OPTIONS[place % 3].encode(),
                place // 3 * SEGMENT_SECONDS,
                (place // 3 + 1) * SEGMENT_SECONDS,
            )
            for place in range(3 * SEGMENTS)
        )
        return b'{"data":[' + b",".join(rows) + b"]}"


def output_uri(form: str, number: int) -> str:
    """Return the folder of an output."""
    return f"s3://{BUCKET}/work/outputs/{form.replace(' ', '-')}/{number:05d}"


def upload_outputs(storage: Storage, form: str, least_bytes: int) -> int:
    """Write outputs until they have so many bytes, and return how many there are."""
    outputs, written, number = Outputs(form), 0, 0
    while written < least_bytes:
        content = outputs.content(number)
        # Without its type SeaweedFS keeps it zipped, and unzips it at a fourth of the parser's speed.
        storage.write(f"{output_uri(form, number)}/output.json", content, content_type="application/json")
        written += len(content)
        number += 1
    return number


def make_batch(storage: Storage, form: str, objects: int, run: str) -> BatchFolder:
    """Write a batch of which all invocations are completed, and return its folder."""
    folder = BatchFolder(f"s3://{BUCKET}/work/{run}/video-001")
    parameters = canonical_parameters(MODEL.parameters(MediaType.VIDEO, {}))
    planned, invocations, statuses = [], [], []
    for number in range(objects):
        key = f"sources/{number:05d}.mp4"
        answer = storage.client.put_object(Bucket=BUCKET, Key=key, Body=f"film {number}".encode())
        media = MediaObject(
            BUCKET, key, answer["ETag"].strip('"'), 10, datetime(2026, 11, 1, tzinfo=UTC), MediaType.VIDEO
        )
        request_id, arn = f"{number:064x}", f"arn:aws:bedrock:us-east-1:111122223333:async-invoke/{number:012x}"
        planned.append(PlannedObject(media, f"{number:064x}", request_id, 1, parameters))
        invocations.append({"request_id": request_id, "invocation_arn": arn, "outcome": "started"})
        statuses.append(
            {
                "request_id": request_id,
                "invocation_arn": arn,
                "status": "Completed",
                "output_uri": output_uri(form, number),
            }
        )
    write_batch(storage, folder, planned, [], datetime.now(UTC))
    for uri, lines in ((folder.invocations_uri, invocations), (folder.statuses_uri, statuses)):
        storage.write(uri, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
    return folder


@dataclass(frozen=True)
class Measured:
    """What a step took in a process of its own, with the processes that it has started."""

    value: Any
    seconds: float
    cpu_seconds: float
    server_cpu_seconds: float
    peak_mebibytes: float


def in_a_process(server: Server, step: Callable[..., Any], *arguments: Any) -> Measured:
    """Run a step in a new process, as a task is one, and measure it there; the process's start does not count."""
    return in_new_process(_measured, server, step, arguments)


def _measured(server: Server, step: Callable[..., Any], arguments: tuple[Any, ...]) -> Measured:
    storage = server.storage
    before, server_before, start = own_cpu_seconds(), server.cpu_seconds(), time.perf_counter()
    with ChildrenWatch() as children:
        value = step(storage, *arguments)
    seconds, cpu = time.perf_counter() - start, own_cpu_seconds() - before
    server_cpu = server.cpu_seconds() - server_before
    return Measured(value, seconds, cpu, server_cpu, peak_mebibytes() + children.peak_mebibytes)


def contents(storage: Storage, form: str, objects: int) -> Iterator[bytes]:
    """Yield outputs as they lie in S3."""
    return (storage.read(f"{output_uri(form, number)}/output.json") for number in range(objects))
