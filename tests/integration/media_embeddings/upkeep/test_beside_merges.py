"""Upkeep while merges of several libraries commit to the same tables, on a real S3 server."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from media_embeddings.schemas import EMBEDDINGS_PARTITIONS, LEDGER_PARTITIONS, LEDGER_SCHEMA, embeddings_schema
from media_embeddings.table_files import Layout
from media_embeddings.tables import Tables
from media_embeddings.upkeep import vacuuming
from media_embeddings.upkeep.compaction import FileBytes, compact
from media_embeddings.upkeep.consistency import check
from media_embeddings.upkeep.kept_tables import KeptTable
from media_embeddings.upkeep.vacuuming import vacuum
from tests.integration.media_embeddings.test_concurrency import going_on
from tests.integration.media_embeddings.test_tables_on_s3 import WRITERS, embedded, options, write
from tests.unit.media_embeddings.test_tables import DIMENSION, MODEL, Status, entry, ledger_table, rows

LIBRARIES = ("films", "clips")
BATCHES = 8
SMALL = FileBytes(file=4_000, commit=100_000)


def new_root(stack) -> str:
    bucket = f"tables-{uuid.uuid4().hex[:12]}"
    stack.seaweedfs.create_buckets(bucket)
    return f"s3://{bucket}/tables"


def begin(root: str) -> Tables:
    """Make tables in which all writers find objects that they share a file with."""
    tables = Tables(root, options())
    start = {"s3://b/shared": 5} | {f"s3://b/start/{writer}": 5 for writer in WRITERS}
    tables.commit_embeddings(MODEL, DIMENSION, rows(start, tag="start"), "start")
    tables.update_ledger(ledger_table([entry(f"s3://b/{writer}", Status.FAILED) for writer in WRITERS]))
    return tables


def kept(root: str) -> tuple[KeptTable, KeptTable]:
    tables = Tables(root, {})
    layout = Layout(embeddings_schema(DIMENSION), EMBEDDINGS_PARTITIONS, ("media_uri", "segment_index"))
    ledger = Layout(LEDGER_SCHEMA, LEDGER_PARTITIONS, ("media_uri",))
    return (
        KeptTable(f"embeddings/{MODEL}", tables.embeddings_uri(MODEL), layout, options()),
        KeptTable("media", tables.ledger_uri, ledger, options()),
    )


def read_whole_objects(root: str) -> None:
    for uri, segments in embedded(root).items():
        assert [index for index, _ in segments] == list(range(len(segments))), uri
        assert len({tag for _, tag in segments}) == 1, uri


def merge(root: str, writer: str) -> None:
    """Commit batch after batch of one library: new objects, others with a new content, and deletions."""
    tables = Tables(root, options())
    for number in range(BATCHES):
        objects = {f"s3://b/{name}/{writer}/{number}": 3 for name in "az"}
        if number > 1:
            objects |= {f"s3://b/{name}/{writer}/{number - 2}": 2 for name in "az"}
        tables.commit_embeddings(MODEL, DIMENSION, rows(objects, tag=f"{writer}-{number}"), f"{writer}-{number}")
        tables.update_ledger(ledger_table([entry(uri) for uri in objects]))
        if number > 4:
            gone = [f"s3://b/a/{writer}/{number - 5}"]
            tables.delete_embeddings(MODEL, DIMENSION, gone, f"deletion-{writer}-{number}")


def merge_at_once(root: str) -> None:
    with ThreadPoolExecutor(len(LIBRARIES)) as pool:
        list(pool.map(lambda writer: merge(root, writer), LIBRARIES))


@pytest.fixture
def root(stack) -> str:
    return new_root(stack)


def test_merges_and_upkeep_at_once_leave_the_rows_that_merges_alone_leave(stack, root):
    begin(root)
    alone = new_root(stack)
    begin(alone)
    embeddings, ledger = kept(root)
    compactions = []

    def upkeep() -> None:
        compactions.append(compact(embeddings, SMALL))
        compact(ledger, SMALL)
        assert vacuum(embeddings, timedelta(days=1)).files == 0

    with going_on(lambda: read_whole_objects(root)) as reads, going_on(upkeep) as upkeeps:
        merge_at_once(root)
    merge_at_once(alone)

    assert reads[0] > 0
    assert upkeeps[0] > 0
    compactions.append(compact(embeddings, SMALL))
    assert sum(made.sets for made in compactions) > 0
    assert embedded(root) == embedded(alone)
    assert len(embedded(root)) == 1 + len(WRITERS) + len(LIBRARIES) * (2 * BATCHES - (BATCHES - 5))
    columns = ["media_uri", "status"]
    states = [Tables(each, options()).read_ledger(MODEL, None, columns).sort_by("media_uri") for each in (root, alone)]
    assert states[0].equals(states[1])
    read_whole_objects(root)


def test_after_compaction_and_vacuum_only_the_files_of_the_table_are_left_and_all_rows(root, monkeypatch):
    begin(root)
    for writer in WRITERS[:4]:
        write(root, writer)
    embeddings, _ = kept(root)
    before = embedded(root)
    written_but_never_committed = embeddings.files.write(rows({"s3://b/killed": 2}))
    monkeypatch.setattr(vacuuming, "LEAST_RETENTION", timedelta(0))

    compact(embeddings, SMALL)
    made = vacuum(embeddings, timedelta(0))

    assert made is not None
    assert made.files > 10
    table = DeltaTable(embeddings.uri, storage_options=options())
    stored = {one.path for one in embeddings.stored() if not one.is_log}
    assert stored == {one.file.path for one in embeddings.counted(table)}
    assert not {add.path for add in written_but_never_committed} & stored
    assert embedded(root) == before
    assert made.checkpointed
    assert table.transaction_version("start") == 1
    assert Tables(root, options()).commit_embeddings(MODEL, DIMENSION, rows({"s3://b/shared": 9}), "start").repeated


def test_the_check_finds_a_file_that_is_lost_on_s3(stack, root):
    tables = begin(root)
    embeddings, ledger = kept(root)
    (file,) = [one.file for one in embeddings.counted(embeddings.open())]
    bucket, _, key = f"{embeddings.uri}/{file.path}".removeprefix("s3://").partition("/")
    import boto3

    boto3.client("s3").delete_object(Bucket=bucket, Key=key)

    made = check([embeddings, ledger], tables, settle_seconds=0)

    assert made.counts["file_absent"] == 1
    assert made.findings[0].what == f"s3://{bucket}/{key}"


def test_upkeep_of_tables_that_are_not_there_makes_none(root):
    embeddings, ledger = kept(root)

    assert compact(embeddings) is None
    assert vacuum(ledger, timedelta(days=7)) is None
    with pytest.raises(TableNotFoundError):
        DeltaTable(embeddings.uri, storage_options=options())
