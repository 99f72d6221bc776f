"""The tables on a real S3 server, whose conditional PUT keeps writers in several processes apart."""

import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

import boto3
import pytest
from deltalake import DeltaTable

from media_embeddings.storage import Storage
from media_embeddings.table_options import current
from media_embeddings.tables import Tables
from tests.unit.media_embeddings.test_tables import DIMENSION, MODEL, Status, entry, ledger_table, rows

PROCESSES, THREADS, COMMITS = 4, 2, 2
WRITERS = [f"w{number}" for number in range(PROCESSES * THREADS)]
# All begin at once, with tables that do not exist or in files that they share.
WRITER = """
import sys
sys.path[:0] = {paths!r}
from tests.integration.media_embeddings.test_tables_on_s3 import write_in_threads

write_in_threads(*sys.argv[1:])
"""


def options() -> dict[str, str]:
    return current(Storage.of_session(boto3.Session()).table_options)


def write(root: str, writer: str) -> None:
    tables = Tables(root, options())
    for number in range(COMMITS):
        name = f"{writer}-{number}"
        objects = {"s3://b/shared": 2, f"s3://b/start/{writer}": 1, f"s3://b/new/{name}": 2}
        tables.commit_embeddings(MODEL, DIMENSION, rows(objects, tag=name), name)
        tables.update_ledger(ledger_table([entry("s3://b/shared"), entry(f"s3://b/{writer}"), entry(f"s3://b/{name}")]))
    # Two that repeat what was committed, as after a crash.
    tables.commit_embeddings(MODEL, DIMENSION, rows({f"s3://b/start/{writer}": 9}), f"{writer}-0")
    tables.commit_embeddings(MODEL, DIMENSION, rows({"s3://b/once": 1}), "once")


def write_in_threads(root: str, *writers: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(writers)) as pool:
        list(pool.map(lambda writer: write(root, writer), writers))


@pytest.fixture
def root(stack) -> str:
    bucket = f"tables-{uuid.uuid4().hex[:12]}"
    stack.seaweedfs.create_buckets(bucket)
    return f"s3://{bucket}/tables"


def run_writers(root: str, script: Path) -> None:
    script.write_text(WRITER.format(paths=[str(Path(__file__).parents[3]), *sys.path]))
    processes = [
        subprocess.Popen([sys.executable, str(script), root, *WRITERS[n::PROCESSES]], stderr=subprocess.PIPE)
        for n in range(PROCESSES)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=180)
            assert process.returncode == 0, errors.decode()
    finally:
        for process in processes:
            process.kill()


def embedded(root: str) -> dict[str, list[tuple[int, str]]]:
    table = DeltaTable(Tables(root, {}).embeddings_uri(MODEL), storage_options=options())
    found: dict[str, list[tuple[int, str]]] = {}
    for row in table.to_pyarrow_dataset().to_table().to_pylist():
        found.setdefault(row["media_uri"], []).append((row["segment_index"], row["etag"]))
    return {uri: sorted(segments) for uri, segments in found.items()}


@pytest.mark.parametrize("beginning", ["absent tables", "objects in one file"])
def test_eight_writers_in_four_processes_lose_and_duplicate_nothing(root, tmp_path, beginning):
    tables = Tables(root, options())
    if beginning == "objects in one file":
        start = {"s3://b/shared": 5} | {f"s3://b/start/{writer}": 5 for writer in WRITERS}
        tables.commit_embeddings(MODEL, DIMENSION, rows(start, tag="start"), "start")
        states = [entry(f"s3://b/{writer}", Status.FAILED) for writer in WRITERS]
        tables.update_ledger(ledger_table([entry("s3://b/shared", Status.FAILED), *states]))

    run_writers(root, tmp_path / "writer.py")

    found = embedded(root)
    shared = found.pop("s3://b/shared")
    assert [index for index, _ in shared] == [0, 1]
    assert len({tag for _, tag in shared}) == 1
    assert found.pop("s3://b/once") == [(0, "e1")]
    last = f"-{COMMITS - 1}"
    expected = {f"s3://b/start/{writer}": [(0, writer + last)] for writer in WRITERS}
    for name in [f"{writer}-{number}" for writer in WRITERS for number in range(COMMITS)]:
        expected[f"s3://b/new/{name}"] = [(0, name), (1, name)]
    assert found == expected

    ledger = tables.read_ledger(MODEL, None, ["media_uri", "status"]).to_pylist()
    uris = {"s3://b/shared", *(f"s3://b/{name}" for name in WRITERS)}
    uris |= {f"s3://b/{writer}-{number}" for writer in WRITERS for number in range(COMMITS)}
    assert Counter(row["media_uri"] for row in ledger) == Counter(uris)
    assert {row["status"] for row in ledger} == {"embedded"}


def test_a_ledger_that_is_not_there_is_empty(root):
    assert Tables(root, options()).read_ledger(MODEL, None).num_rows == 0


UNREADABLE = {
    "the secret is wrong": {"AWS_SECRET_ACCESS_KEY": "another"},
    "the access key is unknown": {"AWS_ACCESS_KEY_ID": "another"},
    "nobody answers": {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"},
}


@pytest.mark.parametrize("changed", UNREADABLE.values(), ids=UNREADABLE)
def test_a_ledger_that_cannot_be_read_is_never_taken_for_an_empty_one(root, changed, monkeypatch):
    right = options()
    Tables(root, right).update_ledger(ledger_table([entry("s3://b/a")]))

    # deltalake prefers the endpoint of the environment to the one that it is given.
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    with pytest.raises(OSError, match=r"(?s)privileges|S3 error"):
        Tables(root, right | changed).read_ledger(MODEL, None)


def test_a_bucket_that_is_not_there_is_an_error(stack):
    with pytest.raises(OSError, match="S3 error"):
        Tables(f"s3://absent-{uuid.uuid4().hex[:12]}/tables", options()).read_ledger(MODEL, None)
