"""What it takes to replace objects in a table of a million rows, against rewriting the table.

    PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/replacing.py [rows] [rounds]

Real: the S3 server (SeaweedFS on the same cores), the table (Marengo 3.0: 512 numbers a row, 50 rows an object), the commits;
each step in a process of its own. Made up: the vectors, which are random. Replaced are

- every tenth object of those that lie in 5 % of the files;
- 1,000 objects that lie side by side, as those of one prefix do, since files are clustered by ``media_uri``;
- 1,000 objects spread over the whole table.

The baseline reads every file and writes all its rows into another one, two files at a time, in one commit.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.transaction import RemoveAction

from benchmarks.made_batch import BUCKET, Measured, Server, in_a_process, seaweedfs
from benchmarks.results import Result, machine, record
from media_embeddings.models import model_named
from media_embeddings.schemas import EMBEDDINGS_PARTITIONS, embeddings_schema
from media_embeddings.storage import Storage
from media_embeddings.table_files import Files
from media_embeddings.table_layout import Layout, now
from media_embeddings.table_options import current
from media_embeddings.tables import Tables

MODEL = model_named("marengo-3-0")
ROOT = f"s3://{BUCKET}/replacing"
ROWS_AN_OBJECT = 50
SHARE_OF_FILES = 0.05
SEVERAL = 1000
SCHEMA = embeddings_schema(MODEL.dimension)
COMMAND = "PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/replacing.py"


@cache
def vectors() -> np.ndarray:
    found = np.random.default_rng(3).standard_normal((8000, MODEL.dimension), dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def uri_of(number: int) -> str:
    return f"s3://{BUCKET}/sources/2026/{number:07d}.mp4"


def rows_of(number: int, tag: str) -> pa.Table:
    """Return all rows of an object."""
    start = number * 37 % (len(vectors()) - ROWS_AN_OBJECT)
    flat = vectors()[start : start + ROWS_AN_OBJECT].reshape(-1)
    offsets = pa.array(np.arange(0, len(flat) + 1, MODEL.dimension, dtype=np.int32))
    moment = datetime(2026, 11, 23, tzinfo=UTC)
    values = {
        "media_uri": uri_of(number),
        "media_type": "video",
        "embedded_month": "2026-11",
        "etag": f"{number:032x}",
        "size_bytes": number,
        "last_modified": moment,
        "embedding_option": "visual",
        "embedding_scope": "clip",
        "embedding_key": f"{number:064x}",
        "request_id": f"{number:064x}",
        "invocation_arn": f"arn:aws:bedrock:us-east-1:111122223333:async-invoke/{number:012x}",
        "run_id": tag,
        "embedded_at": moment,
    }
    segments = pa.array(range(ROWS_AN_OBJECT))
    columns = {
        "segment_index": segments.cast(pa.int32()),
        "start_sec": segments.cast(pa.float64()),
        "end_sec": pc.add(segments, 1).cast(pa.float64()),
        "embedding": pa.ListArray.from_arrays(offsets, pa.array(flat), type=SCHEMA.field("embedding").type),
    }
    return pa.table(
        [
            columns[field.name]
            if field.name in columns
            else pa.repeat(pa.scalar(values.get(field.name), field.type), ROWS_AN_OBJECT)
            for field in SCHEMA
        ],
        schema=SCHEMA,
    )


def tables(storage: Storage) -> Tables:
    return Tables(ROOT, storage.table_options)


def build(storage: Storage, objects: int) -> int:
    """Write the table, and return how many rows it has."""
    with tables(storage).new_embeddings(MODEL.name, MODEL.dimension) as new:
        for number in range(objects):
            new.add(rows_of(number, "first"))
        made = new.commit(["first"])
    assert made is not None
    return made.rows


def opened(storage: Storage) -> tuple[DeltaTable, Files]:
    uri, options = tables(storage).embeddings_uri(MODEL.name), current(storage.table_options)
    layout = Layout(SCHEMA, EMBEDDINGS_PARTITIONS, ("media_uri", "segment_index"))
    return DeltaTable(uri, storage_options=options), Files(uri, options, layout)


def in_some_files(storage: Storage, part: int) -> tuple[list[int], int, int]:
    """Return every tenth object of 5 % of the files, how many files those are, and how many there are."""
    table, files = opened(storage)
    # Files of an earlier replacement lie within the range of another.
    ranges = sorted((file.first_uri or "", file.last_uri or "") for file in files.of(table))
    count = max(1, round(SHARE_OF_FILES * len(ranges)))
    wanted = ranges[(3 * part + 1) * count : (3 * part + 2) * count]
    numbers = [int(name.rsplit("/", 1)[1].removesuffix(".mp4")) for one in wanted for name in one]
    within = zip(numbers[::2], numbers[1::2], strict=True)
    return [number for first, last in within for number in range(first, last + 1, 10)], count, len(ranges)


def replace(storage: Storage, numbers: Sequence[int], tag: str) -> float:
    """Replace objects, and return the seconds that this takes when their rows are there."""
    rows = pa.concat_tables(rows_of(number, tag) for number in numbers)
    start = time.perf_counter()
    made = tables(storage).commit_embeddings(MODEL.name, MODEL.dimension, rows, tag)
    seconds = time.perf_counter() - start
    assert made.replaced == len(numbers)
    return seconds


def rewrite(storage: Storage) -> float:
    """Write the whole table again in one commit, and return the seconds that this takes."""
    start = time.perf_counter()
    table, files = opened(storage)
    there = list(files.of(table))
    with ThreadPoolExecutor(2) as pool:
        written = list(pool.map(lambda file: files.write_rest(file, _all), there))
    removed = [RemoveAction(file.path, True, now(), file.size_bytes, dict(file.partition_values)) for file in there]
    added = [add for adds in written for add in adds]
    table.create_write_transaction(
        [*added, *removed], "append", table.schema(), partition_by=list(EMBEDDINGS_PARTITIONS)
    )
    return time.perf_counter() - start


def _all(rows: pa.Table) -> pa.Array:
    return pa.chunked_array([pa.repeat(pa.scalar(True), rows.num_rows)])


def said(name: str, measured: Measured) -> Measured:
    seconds = measured.value if isinstance(measured.value, float) else measured.seconds
    print(
        f"{name}: {seconds:.1f} s, own CPU {measured.cpu_seconds:.1f} s, server's {measured.server_cpu_seconds:.1f} s, "
        f"{measured.peak_mebibytes:.0f} MiB, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return measured


def results(clustered: Sequence[float], several: dict[str, float], whole: float, conditions: str) -> Iterator[Result]:
    """Yield what is kept."""
    baseline = f"rewriting all files of the table: {whole:.1f} s"
    yield Result.at_most(
        0.08,
        name="replacing objects of 5 % of the files",
        value=median(clustered) / whole,
        unit="of rewriting the table",
        baseline=baseline,
        limit=f"{SHARE_OF_FILES:g}: these files' share of the table",
        command=COMMAND,
        conditions=conditions,
    )
    gain = several["spread"] / several["side by side"]
    for name, seconds in several.items():
        yield Result(
            name=f"replacing {SEVERAL:,} objects, {name}",
            value=round(seconds / whole, 4),
            unit="of rewriting the table",
            target="reported",
            met=True,
            baseline=baseline,
            limit=f"clustering by media_uri makes those side by side {gain:.1f} times as fast as those spread",
            command=COMMAND,
            conditions=conditions,
        )


def main(rows: int, rounds: int) -> None:
    """Build the table, replace, rewrite, and keep the ratios."""
    objects = rows // ROWS_AN_OBJECT
    with tempfile.TemporaryDirectory() as directory, seaweedfs(directory) as running:
        os.environ.update(running.environment)
        server = Server.of(running)
        said("build", in_a_process(server, build, objects))
        clustered, of_files = [], ""
        for part in range(rounds):
            numbers, count, there = in_a_process(server, in_some_files, part).value
            of_files = f"{count} of {there} files"
            found = said(
                f"{len(numbers)} objects in {of_files}", in_a_process(server, replace, numbers, f"part {part}")
            )
            clustered.append(found.value)
        whole = said("rewrite", in_a_process(server, rewrite)).value
        middle, step = objects // 2, max(1, objects // SEVERAL)
        chosen = {"side by side": range(middle, middle + SEVERAL), "spread": range(0, objects, step)[:SEVERAL]}
        several = {
            name: said(name, in_a_process(server, replace, list(numbers), name)).value
            for name, numbers in chosen.items()
        }
    conditions = f"{machine()}; {rows:,} rows of {MODEL.dimension} numbers, {of_files}; S3 server on the same cores"
    record(*results(clustered, several, whole, conditions))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, int(sys.argv[2]) if len(sys.argv) > 2 else 3)
