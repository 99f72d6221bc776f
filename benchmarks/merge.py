"""How fast a batch is merged: from ``output.json`` on S3 to committed rows.

    PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/merge.py [GiB] [rounds]

Real: the S3 server (SeaweedFS on the same cores), the outputs' bytes (see ``made_batch.py``), the merge as its task runs it, in
a process of its own, with those that it starts to parse and with its three commits. Made up: the batch, whose invocations never
ran. Compared in the same run with

- simdjson: ``Parser().parse`` and ``as_buffer`` of every vector, of the same bytes, from memory, on one core;
- ``json``, pandas and ``to_parquet`` to the same S3 server, of the same outputs.

With the server's processor time taken out, the merge is counted as if that time, spread over the cores, had not passed.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
from statistics import median
from typing import Any

import simdjson

from benchmarks.made_batch import (
    BUCKET,
    MODEL,
    Measured,
    Server,
    contents,
    in_a_process,
    library,
    make_batch,
    seaweedfs,
    upload_outputs,
)
from benchmarks.results import Result, machine, record
from media_embeddings.merging import merge_batch
from media_embeddings.run_folder import BatchFolder
from media_embeddings.storage import Storage

FORM = "17 digits"
COMMAND = "PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/merge.py"
MEBIBYTE = 1024**2


def merge(storage: Storage, run: str, folder: BatchFolder) -> int:
    """Merge a batch into tables that do not exist, and return how many rows it has."""
    return merge_batch(storage, library(run), MODEL.name, run, folder).segments


def parse(storage: Storage, form: str, objects: int) -> tuple[int, float]:
    """Return how many bytes simdjson has parsed from memory on one core, and its seconds."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    size, seconds = 0, 0.0
    for content in contents(storage, form, objects):
        start = time.perf_counter()
        document = simdjson.Parser().parse(content)
        vectors = [row["embedding"].as_buffer(of_type="d") for row in document["data"]]
        seconds += time.perf_counter() - start
        size += len(content)
        del document, vectors
    return size, seconds


def naive(storage: Storage, form: str, objects: int, run: str) -> int:
    """Do it as a script would: json, a data frame, Parquet; return how many bytes of outputs were read."""
    # Not at the top, so that it takes no memory in the merge's process.
    import pandas as pd

    frames, size = [], 0
    for number, content in enumerate(contents(storage, form, objects)):
        rows: list[dict[str, Any]] = json.loads(content)["data"]
        frames.append(pd.DataFrame(rows).assign(media_uri=f"s3://{BUCKET}/sources/{number:05d}.mp4"))
        size += len(content)
    buffer = io.BytesIO()
    pd.concat(frames).to_parquet(buffer)
    storage.write(f"s3://{BUCKET}/naive/{run}.parquet", buffer.getvalue())
    return size


def rate(size: int, seconds: float) -> float:
    return size / seconds / MEBIBYTE


def without_server(merged: Measured) -> float:
    """Return the seconds of a merge as if the server had had cores of its own."""
    return merged.seconds - merged.server_cpu_seconds / len(os.sched_getaffinity(0))


def main(gibibytes: float, rounds: int) -> None:
    """Measure, and keep the medians."""
    with tempfile.TemporaryDirectory() as directory, seaweedfs(directory) as running:
        os.environ.update(running.environment)
        server = Server.of(running)
        storage = server.storage
        objects = upload_outputs(storage, FORM, int(gibibytes * 1024**3))
        folder = make_batch(storage, FORM, objects, "speed")
        shares, alone, times, parsed_rates, merged_rates, naive_rates = [], [], [], [], [], []
        for number in range(rounds):
            size, seconds = in_a_process(server, parse, FORM, objects).value
            merged = in_a_process(server, merge, f"speed-{number}", folder)
            parsed_rates.append(rate(size, seconds))
            merged_rates.append(rate(size, merged.seconds))
            shares.append(merged_rates[-1] / parsed_rates[-1])
            alone.append(rate(size, without_server(merged)) / parsed_rates[-1])
            by_hand = in_a_process(server, naive, FORM, objects, f"by-hand-{number}")
            naive_rates.append(rate(by_hand.value, by_hand.seconds))
            times.append(merged_rates[-1] / naive_rates[-1])
            print(
                f"round {number}: simdjson {parsed_rates[-1]:.0f} MiB/s, merge {merged_rates[-1]:.0f} MiB/s "
                f"({merged.seconds:.1f} s, own CPU {merged.cpu_seconds:.1f} s, server's {merged.server_cpu_seconds:.1f} s, "
                f"{merged.peak_mebibytes:.0f} MiB), share {shares[-1]:.2f}, without server {alone[-1]:.2f}; "
                f"by hand {naive_rates[-1]:.0f} MiB/s, {by_hand.peak_mebibytes:.0f} MiB; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    conditions = (
        f"{machine()}; {size / 1024**3:.2f} GiB in {objects} outputs, {rounds} rounds; S3 server on the same cores; "
        "the batch and its invocations are made up"
    )
    parser = f"simdjson parses the same bytes from memory on one core at {median(parsed_rates):.0f} MiB/s"
    speed = f"merged at {median(merged_rates):.0f} MiB/s"
    record(
        Result.at_least(
            0.4,
            name="merge: share of simdjson's rate",
            value=median(shares),
            unit="of its rate",
            baseline=parser,
            limit=f"1 for each core that parses; {speed}",
            command=COMMAND,
            conditions=conditions,
        ),
        Result.at_least(
            0.4,
            name="merge: share of simdjson's rate, server's CPU taken out",
            value=median(alone),
            unit="of its rate",
            baseline=parser,
            limit=f"1 for each core that parses; {speed}",
            command=COMMAND,
            conditions=f"{conditions}; its CPU seconds over the cores count as not passed",
        ),
        Result.at_least(
            6,
            name="merge: against json, pandas and to_parquet",
            value=median(times),
            unit="times its rate",
            baseline=f"json + pandas + to_parquet + put of the same outputs at {median(naive_rates):.0f} MiB/s",
            limit=f"the parser: {median(parsed_rates) / median(naive_rates):.1f}",
            command=COMMAND,
            conditions=conditions,
        ),
    )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0, int(sys.argv[2]) if len(sys.argv) > 2 else 3)
