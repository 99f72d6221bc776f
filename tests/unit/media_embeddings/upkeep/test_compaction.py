from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from media_embeddings.models import model_names
from media_embeddings.schemas import EMBEDDINGS_PARTITIONS, embeddings_schema
from media_embeddings.table_files import Files, Layout
from media_embeddings.tables import Tables
from media_embeddings.upkeep.compaction import FileBytes, compact
from media_embeddings.upkeep.kept_tables import KeptTable, kept_tables
from tests.unit.media_embeddings.test_tables import DIMENSION, MODEL, commit, content, files, ranges, rows

LAYOUT = Layout(embeddings_schema(DIMENSION), EMBEDDINGS_PARTITIONS, ("media_uri", "segment_index"))
# A row of these tests takes about 150 bytes of memory, so that a file of good size has less than 40.
SMALL = FileBytes(file=6_000, commit=100_000)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path), {})


@pytest.fixture
def table(tables) -> KeptTable:
    return KeptTable("embeddings", tables.embeddings_uri(MODEL), LAYOUT, {})


def every_row(table: KeptTable) -> list[dict]:
    return DeltaTable(table.uri).to_pyarrow_dataset().to_table().sort_by("media_uri").to_pylist()


def batches(tables: Tables, number: int = 6) -> None:
    """Commit batches whose ranges of URIs all overlap, into two partitions."""
    for batch in range(number):
        objects = {f"s3://b/{index:02}{batch}": 2 for index in range(8)}
        commit(tables, rows(objects, tag=f"e{batch}"), str(batch))
    commit(tables, rows({"s3://b/sound": 1}, media_type="audio"), "sound")


def test_overlapping_small_files_become_files_of_good_size_with_ranges_of_their_own(tables, table):
    batches(tables)
    before, whole = content(tables), every_row(table)

    made = compact(table, SMALL)

    assert made is not None
    assert (made.sets, made.files_removed, made.rows, made.overtaken, made.left) == (1, 6, 96, 0, 0)
    assert made.files_added == len(files(tables)) - 1 == 3
    assert content(tables) == before
    assert sorted(map(str, every_row(table))) == sorted(map(str, whole))
    video = [one for one in ranges(tables) if one[0] != "s3://b/sound"]
    assert all(one[1] < other[0] for one, other in pairwise(video))


def test_it_comes_to_rest(tables, table):
    batches(tables)
    compact(table, SMALL)
    version = DeltaTable(table.uri).version()

    made = compact(table, SMALL)

    assert made is not None
    assert made.sets == 0
    assert DeltaTable(table.uri).version() == version


def test_partitions_order_encodings_and_statistics_are_those_of_a_merge(tables, table):
    batches(tables)
    merged = pq.ParquetFile(sorted(files(tables))[-1]).metadata.row_group(0)
    compact(table, SMALL)

    for path in files(tables):
        parquet = pq.ParquetFile(path)
        found = parquet.read(["media_uri", "segment_index"]).to_pylist()
        keys = [(row["media_uri"], row["segment_index"]) for row in found]
        assert keys == sorted(keys)
        group = parquet.metadata.row_group(0)
        for number in range(group.num_columns):
            one, other = group.column(number), merged.column(number)
            assert (one.path_in_schema, one.encodings, one.compression) == (
                other.path_in_schema,
                other.encodings,
                other.compression,
            )
        assert parquet.schema_arrow.metadata[b"embedding_dimension"] == b"4"
    folders = {tuple(Path(file).parts[-3:-1]) for file in files(tables)}
    assert folders == {
        ("media_type=video", "embedded_month=2026-11"),
        ("media_type=audio", "embedded_month=2026-11"),
    }
    assert None not in pa.table(DeltaTable(table.uri).get_add_actions(flatten=True))["num_records"].to_pylist()


def test_a_commit_says_that_no_data_has_changed(tables, table):
    batches(tables)
    compact(table, SMALL)

    log = Path(table.uri, "_delta_log", f"{DeltaTable(table.uri).version():020}.json").read_text()

    assert '"dataChange":false' in log
    assert '"dataChange":true' not in log


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(tables, table, tmp_path):
    batches(tables)
    before = sorted(tmp_path.rglob("*"))

    made = compact(table, SMALL, dry_run=True)

    assert made is not None
    assert (made.sets, made.files_removed, made.files_added, made.rows) == (1, 6, 3, 96)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_table_that_is_not_there_is_left_so(table, tmp_path):
    assert compact(table) is None
    assert list(tmp_path.iterdir()) == []


def interrupt_writing(monkeypatch, action) -> None:
    """Do something right after a compaction has written its first file."""
    write, done = Files.write, []

    def writing(self, given):
        adds = write(self, given)
        if not done:
            done.append(True)
            action()
        return adds

    monkeypatch.setattr(Files, "write", writing)


def test_an_object_that_a_merge_replaces_meanwhile_keeps_the_rows_of_the_merge(tables, table, monkeypatch):
    batches(tables)
    interrupt_writing(monkeypatch, lambda: commit(tables, rows({"s3://b/000": 3}, tag="new"), "merge"))

    made = compact(table, SMALL)

    assert made is not None
    assert (made.sets, made.overtaken, made.left) == (1, 1, 0)
    found = content(tables)
    assert found["s3://b/000"] == [(0, "new"), (1, "new"), (2, "new")]
    assert len(found) == 49


def test_an_object_that_is_deleted_meanwhile_does_not_come_back(tables, table, monkeypatch):
    batches(tables)
    interrupt_writing(
        monkeypatch, lambda: tables.delete_embeddings(MODEL, DIMENSION, ["s3://b/000", "s3://b/071"], "deletion")
    )

    compact(table, SMALL)

    assert not {"s3://b/000", "s3://b/071"} & set(content(tables))
    assert len(content(tables)) == 47


def test_a_merge_that_only_adds_meanwhile_takes_nothing_of_the_work_away(tables, table, monkeypatch):
    batches(tables)
    interrupt_writing(monkeypatch, lambda: commit(tables, rows({"s3://b/new": 3}), "merge"))

    made = compact(table, SMALL)

    assert made is not None
    assert (made.sets, made.overtaken) == (1, 0)
    assert len(content(tables)) == 50


def test_a_merge_that_began_before_a_compaction_replaces_its_objects_in_the_new_files(tables, table, monkeypatch):
    batches(tables)
    interrupt_writing(monkeypatch, lambda: compact(table, SMALL))

    commit(tables, rows({"s3://b/000": 3, "s3://b/075": 1}, tag="new"), "merge")

    found = content(tables)
    assert found["s3://b/000"] == [(0, "new"), (1, "new"), (2, "new")]
    assert found["s3://b/075"] == [(0, "new")]
    assert len(found) == 49


def test_commit_ids_are_known_after_a_compaction(tables, table):
    batches(tables)
    compact(table, SMALL)

    assert commit(tables, rows({"s3://b/000": 9}, tag="again"), "0").repeated


def test_every_table_below_a_root_is_kept(tmp_path):
    names = [one.name for one in kept_tables(str(tmp_path), {})]

    assert names == [*(f"embeddings/{model}" for model in model_names()), "media", "invocations"]
