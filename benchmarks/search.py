"""Exact search over 1,000,000 vectors of 512 numbers, against loading the table into memory and sorting.

    PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/search.py [vectors] [rounds]

Real: the S3 server (SeaweedFS on the same cores), the table as the pipeline writes it, each search in a process of its own.
Made up: the vectors, normally distributed and of unit length. Compared in the same rounds with

- pandas: ``DeltaTable.to_pandas()``, ``numpy.stack``, a matrix product, ``argsort``;
- pyarrow: ``DeltaTable.to_pyarrow_table(columns=...)``, the same without a Python object for each vector;
- bare reading: every file of the table read from the S3 server by as many threads, and thrown away.

All must find the same segments.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.made_batch import BUCKET, Measured, Server, in_a_process, seaweedfs
from benchmarks.results import Result, machine, record
from media_embeddings.library import Library
from media_embeddings.models import model_named
from media_embeddings.schemas import embeddings_schema
from media_embeddings.search.access import Access
from media_embeddings.search.queries import VectorQuery
from media_embeddings.search.searching import search
from media_embeddings.storage import Storage
from media_embeddings.table_options import current
from media_embeddings.tables import Tables

MODEL = model_named("marengo-3-0")
TOP = 10
SEGMENTS_AN_OBJECT = 100
ROWS_A_COMMIT = 50_000
THREADS = 4
COMMAND = "PYTHONPATH=include:plugins:. .venv/bin/python benchmarks/search.py"
MOST_MEBIBYTES = 600
LIBRARY = Library(
    name="large",
    sources=(f"s3://{BUCKET}/sources/",),
    region="us-east-1",
    model=MODEL.name,
    tables=f"s3://{BUCKET}/search/tables",
    work=f"s3://{BUCKET}/search/work",
)

Rows = list[tuple[str, int]]


def parts(count: int) -> Iterator[pa.Table]:
    """Yield the table's rows, a commit at a time."""
    random, schema = np.random.default_rng(11), embeddings_schema(MODEL.dimension)
    moment = datetime(2026, 11, 1, tzinfo=UTC)
    constant: dict[str, Any] = {
        "media_type": "video",
        "embedded_month": "2026-11",
        "etag": "0123456789abcdef0123456789abcdef",
        "version_id": None,
        "size_bytes": 1_000_000,
        "last_modified": moment,
        "start_char": None,
        "end_char": None,
        "embedding_option": "visual",
        "embedding_scope": "clip",
        "embedding_key": "k" * 64,
        "request_id": "r" * 64,
        "invocation_arn": "arn:aws:bedrock:us-east-1:111122223333:async-invoke/abcdefghijkl",
        "run_id": "run",
        "embedded_at": moment,
    }
    for first in range(0, count, ROWS_A_COMMIT):
        rows = min(ROWS_A_COMMIT, count - first)
        numbers = np.arange(first, first + rows)
        vectors = random.normal(size=(rows, MODEL.dimension)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        offsets = np.arange(0, vectors.size + 1, MODEL.dimension, dtype=np.int32)
        own = {
            "media_uri": pa.array(
                [f"s3://{BUCKET}/sources/{number // SEGMENTS_AN_OBJECT:08d}.mp4" for number in numbers]
            ),
            "segment_index": pa.array(numbers % SEGMENTS_AN_OBJECT, pa.int32()),
            "start_sec": pa.array((numbers % SEGMENTS_AN_OBJECT) * 6.0),
            "end_sec": pa.array((numbers % SEGMENTS_AN_OBJECT) * 6.0 + 6.0),
            "embedding": pa.ListArray.from_arrays(offsets, vectors.ravel(), type=schema.field("embedding").type),
        }
        yield pa.table(
            [
                own[field.name] if field.name in own else pa.repeat(pa.scalar(constant[field.name], field.type), rows)
                for field in schema
            ],
            schema=schema,
        )


def write_table(storage: Storage, count: int) -> None:
    """Write the table, as merges of one batch after another do."""
    tables = Tables(LIBRARY.tables, storage.table_options)
    for number, rows in enumerate(parts(count)):
        tables.commit_embeddings(MODEL.name, MODEL.dimension, rows, f"part-{number}")


def query() -> np.ndarray:
    """Return the vector that is searched for."""
    return np.random.default_rng(12).normal(size=MODEL.dimension).astype(np.float32)


def searched(storage: Storage) -> Rows:
    """Search as the project does."""

    def no_bedrock() -> Any:
        raise AssertionError("a vector asks nothing of Bedrock")

    found = search(
        [LIBRARY], VectorQuery(query().tolist()), top=TOP, access_of=lambda _library: Access(storage, no_bedrock)
    )
    return [(hit.media_uri, hit.segment_index) for hit in found.hits]


def by_pandas(storage: Storage) -> Rows:
    """Search as a notebook would."""
    from deltalake import DeltaTable

    frame = DeltaTable(LIBRARY.embeddings_uri, storage_options=current(storage.table_options)).to_pandas()
    vectors = np.stack(frame["embedding"].to_numpy())
    return _sorted(vectors, frame["media_uri"].to_numpy(), frame["segment_index"].to_numpy())


def by_pyarrow(storage: Storage) -> Rows:
    """Search as a notebook would that knows of Arrow, and which columns it needs."""
    from deltalake import DeltaTable

    table = DeltaTable(LIBRARY.embeddings_uri, storage_options=current(storage.table_options)).to_pyarrow_table(
        columns=["embedding", "media_uri", "segment_index"]
    )
    vectors = np.concatenate([chunk.flatten().to_numpy() for chunk in table["embedding"].chunks])
    return _sorted(
        vectors.reshape(-1, MODEL.dimension), table["media_uri"].to_pandas(), table["segment_index"].to_numpy()
    )


def _sorted(vectors: np.ndarray, uris: Any, segments: np.ndarray) -> Rows:
    cosines = vectors @ query() / np.linalg.norm(vectors, axis=1)
    return [(str(uris[place]), int(segments[place])) for place in np.argsort(-cosines)[:TOP]]


def bare_reading(storage: Storage) -> int:
    """Read every file of the table and throw it away; return how many bytes that were."""
    from deltalake import DeltaTable

    uris = DeltaTable(LIBRARY.embeddings_uri, storage_options=current(storage.table_options)).file_uris()
    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(lambda uri: len(storage.read(uri)), uris))


def main(vectors: int, rounds: int) -> None:
    """Measure, and keep the medians."""
    steps = {"search": searched, "pandas": by_pandas, "pyarrow": by_pyarrow, "bare reading": bare_reading}
    measured: dict[str, list[Measured]] = {name: [] for name in steps}
    with tempfile.TemporaryDirectory() as directory, seaweedfs(directory) as running:
        os.environ.update(running.environment)
        server = Server.of(running)
        # In a process of its own as well: a new process is counted the most memory that its parent has had.
        in_a_process(server, write_table, vectors)
        for number in range(rounds):
            for name, step in steps.items():
                one = in_a_process(server, step)
                measured[name].append(one)
                print(
                    f"round {number}: {name} {one.seconds:.2f} s, CPU {one.cpu_seconds:.2f} s, {one.peak_mebibytes:.0f} MiB",
                    flush=True,
                )
            answers = [measured[name][-1].value for name in ("search", "pandas", "pyarrow")]
            assert answers[0] == answers[1] == answers[2], answers
    compare(vectors, rounds, measured)


def compare(vectors: int, rounds: int, measured: dict[str, list[Measured]]) -> None:
    """Record the ratios."""
    seconds = {name: median(one.seconds for one in all_of) for name, all_of in measured.items()}
    memory = {name: median(one.peak_mebibytes for one in all_of) for name, all_of in measured.items()}
    size = measured["bare reading"][0].value / 1024**2
    conditions = (
        f"{machine()}; {vectors:,} x {MODEL.dimension}, {size:.0f} MiB of files, {rounds} rounds; S3 server on the same cores; "
        "made-up vectors"
    )
    limit = f"reading the files without looking into them: {seconds['bare reading']:.2f} s"
    command = COMMAND if vectors == 1_000_000 else f"{COMMAND} {vectors} {rounds}"
    took = f"{seconds['search']:.2f} s"
    for name, least in (("pandas", 2.0), ("pyarrow", 1.0)):
        record(
            Result.at_least(
                least,
                name=f"search of {vectors:,} vectors: against {name} and argsort",
                value=seconds[name] / seconds["search"],
                unit="times its rate",
                baseline=f"{name}: {seconds[name]:.2f} s; search: {took}",
                limit=limit,
                command=command,
                conditions=conditions,
            )
        )
    record(
        Result.at_most(
            MOST_MEBIBYTES,
            name=f"search of {vectors:,} vectors: memory",
            value=memory["search"],
            unit="MiB",
            baseline=f"pandas: {memory['pandas']:.0f} MiB; pyarrow: {memory['pyarrow']:.0f} MiB; "
            f"a process that only reads the files: {memory['bare reading']:.0f} MiB",
            limit="the same for any number of vectors",
            command=command,
            conditions=conditions,
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, int(sys.argv[2]) if len(sys.argv) > 2 else 3)
