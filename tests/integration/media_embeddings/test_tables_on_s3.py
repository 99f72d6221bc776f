"""The tables on a real S3 server, whose conditional PUT keeps writers in several processes apart."""

import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from deltalake import DeltaTable

from media_embeddings.storage import Storage
from media_embeddings.tables import Tables

MODEL = "marengo-test"
WRITER = """
import sys
sys.path[:0] = {paths!r}
import boto3
from media_embeddings.storage import Storage
from media_embeddings.tables import Tables
from tests.unit.media_embeddings.test_tables import DIMENSION, MODEL, entry, ledger_table, rows

root, writer = sys.argv[1:]
tables = Tables(root, Storage.of_session(boto3.Session()).table_options)
for number in range(4):
    objects = {{"s3://b/shared": 2, f"s3://b/{{writer}}": 1, f"s3://b/{{writer}}/{{number}}": 1}}
    tables.commit_embeddings(MODEL, DIMENSION, rows(objects, tag=f"{{writer}}-{{number}}"), f"{{writer}}-{{number}}")
    tables.update_ledger(ledger_table([entry("s3://b/shared"), entry(f"s3://b/{{writer}}")]))
"""


@pytest.fixture
def root(stack):
    stack.seaweedfs.create_buckets("shared-tables")
    return "s3://shared-tables/tables"


def test_writers_in_several_processes_lose_and_duplicate_nothing(root, tmp_path):
    script = tmp_path / "writer.py"
    script.write_text(WRITER.format(paths=[str(Path(__file__).parents[3]), *sys.path]))
    writers = [
        subprocess.Popen([sys.executable, str(script), root, f"w{number}"], stderr=subprocess.PIPE)
        for number in range(4)
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors.decode()

    options = Storage.of_session(boto3.Session()).table_options
    tables = Tables(root, options)
    table = DeltaTable(tables.embeddings_uri(MODEL), storage_options=dict(options)).to_pyarrow_dataset().to_table()
    found: dict[str, list[str]] = {}
    for row in table.to_pylist():
        found.setdefault(row["media_uri"], []).append(row["etag"])
    # One object that all write, one of each writer that it writes again and again, and four more of each.
    assert len(found) == 1 + 4 + 16
    assert len(found["s3://b/shared"]) == 2
    assert len(set(found["s3://b/shared"])) == 1
    assert [found[f"s3://b/w{number}"] for number in range(4)] == [[f"w{number}-3"] for number in range(4)]
    ledger = tables.read_ledger(MODEL, None)["media_uri"].to_pylist()
    assert sorted(ledger) == ["s3://b/shared", "s3://b/w0", "s3://b/w1", "s3://b/w2", "s3://b/w3"]
