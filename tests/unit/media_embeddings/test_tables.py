from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media_embeddings.ledger import LedgerEntry, ledger_table
from media_embeddings.planning import Status
from media_embeddings.schemas import embeddings_schema
from media_embeddings.tables import Tables

DIMENSION = 4
MODEL = "marengo-test"
NOW = datetime(2026, 11, 23, tzinfo=UTC)


def rows(objects: dict[str, int], *, tag: str = "e1", month: str = "2026-11", media_type: str = "video") -> pa.Table:
    """Return as many segments of each object as it says, marked with ``tag``."""
    return pa.Table.from_pylist(
        [
            {
                "media_uri": uri,
                "media_type": media_type,
                "embedded_month": month,
                "etag": tag,
                "size_bytes": 1,
                "last_modified": NOW,
                "segment_index": index,
                "start_sec": float(index),
                "end_sec": index + 1.0,
                "embedding": [float(index), 0.5, -0.25, 1.0],
                "embedding_key": "k",
                "request_id": "r",
                "invocation_arn": "a",
                "run_id": "run",
                "embedded_at": NOW,
            }
            for uri, segments in objects.items()
            for index in range(segments)
        ],
        schema=embeddings_schema(DIMENSION),
    )


def content(tables: Tables) -> dict[str, list[tuple[int, str]]]:
    table = DeltaTable(tables.embeddings_uri(MODEL)).to_pyarrow_dataset().to_table()
    found: dict[str, list[tuple[int, str]]] = {}
    for row in sorted(table.to_pylist(), key=lambda row: (row["media_uri"], row["segment_index"])):
        found.setdefault(row["media_uri"], []).append((row["segment_index"], row["etag"]))
    return found


def files(tables: Tables) -> set[str]:
    return set(DeltaTable(tables.embeddings_uri(MODEL)).file_uris())


def commit(tables: Tables, objects: pa.Table, commit_id: str):
    return tables.commit_embeddings(MODEL, DIMENSION, objects, commit_id)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path), {})


def test_new_objects_are_appended_and_changed_ones_replaced_in_one_commit(tables):
    commit(tables, rows({"s3://b/a": 3, "s3://b/b": 2}), "1")
    made = commit(tables, rows({"s3://b/b": 1, "s3://b/c": 1}, tag="e2"), "2")

    assert (made.version, made.rows, made.replaced) == (2, 2, 1)
    assert content(tables) == {
        "s3://b/a": [(0, "e1"), (1, "e1"), (2, "e1")],
        "s3://b/b": [(0, "e2")],
        "s3://b/c": [(0, "e2")],
    }


def test_rows_of_an_earlier_month_are_replaced_as_well(tables):
    commit(tables, rows({"s3://b/a": 3}, month="2026-10"), "1")
    commit(tables, rows({"s3://b/a": 1}, tag="e2"), "2")

    assert content(tables) == {"s3://b/a": [(0, "e2")]}


def test_a_commit_that_is_repeated_changes_nothing(tables):
    first = commit(tables, rows({"s3://b/a": 3}), "1")
    again = commit(tables, rows({"s3://b/a": 3}), "1")

    assert (first.repeated, again.repeated) == (False, True)
    assert again.version == first.version


def test_only_files_that_hold_replaced_objects_are_rewritten(tables):
    for number in range(4):
        commit(tables, rows({f"s3://b/{number}/a": 2, f"s3://b/{number}/b": 2}), str(number))
    before = files(tables)

    commit(tables, rows({"s3://b/2/a": 1, "s3://b/1/z": 1}, tag="e2"), "replace")

    assert len(before - files(tables)) == 1
    assert content(tables)["s3://b/2/b"] == [(0, "e1"), (1, "e1")]


NASTY = ["it's", 'a"b', "50%20off", "a+b c", "naïve-ß-日本", "a\\b", "'; DROP TABLE x; --", "{b}", "a'''b", "tab\tb"]


def test_keys_with_quotes_percent_signs_and_other_letters_are_replaced_exactly(tables):
    commit(tables, rows({f"s3://b/{name}": 2 for name in NASTY}), "1")

    for name in NASTY:
        commit(tables, rows({f"s3://b/{name}": 1}, tag="e2"), f"2 {name}")

    assert content(tables) == {f"s3://b/{name}": [(0, "e2")] for name in NASTY}


KEYS = st.sampled_from(["a", "b", "c'd", "é"])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(KEYS, st.integers(1, 3), min_size=1), min_size=1, max_size=5))
def test_the_table_holds_the_latest_rows_of_every_object(tmp_path_factory, commits):
    tables = Tables(str(tmp_path_factory.mktemp("tables")), {})
    expected: dict[str, list[tuple[int, str]]] = {}
    for number, objects in enumerate(commits):
        commit(tables, rows({f"s3://b/{key}": n for key, n in objects.items()}, tag=str(number)), str(number))
        expected |= {f"s3://b/{key}": [(index, str(number)) for index in range(n)] for key, n in objects.items()}

    assert content(tables) == expected


def test_vectors_are_split_by_byte_and_compressed_and_files_are_sorted_with_whole_statistics(tables):
    long = "s3://b/" + "x" * 1000
    commit(tables, rows({long: 2, "s3://b/a": 2}), "1")
    (file,) = files(tables)

    metadata = pq.ParquetFile(file).metadata.row_group(0)
    columns = {metadata.column(i).path_in_schema: metadata.column(i) for i in range(metadata.num_columns)}
    vectors = columns["embedding.list.element"]
    assert "BYTE_STREAM_SPLIT" in vectors.encodings
    assert "RLE_DICTIONARY" not in vectors.encodings
    assert vectors.compression == "ZSTD"
    assert pq.read_table(file, columns=["media_uri"])["media_uri"].to_pylist() == ["s3://b/a"] * 2 + [long] * 2
    statistics = pa.table(DeltaTable(tables.embeddings_uri(MODEL)).get_add_actions(flatten=True))
    assert statistics["max.media_uri"].to_pylist() == [long]
    assert not any("embedding" in name for name in statistics.column_names if name.startswith(("min", "max")))


def test_vectors_come_back_as_they_were(tables):
    vectors = np.random.default_rng(1).normal(size=(5, DIMENSION)).astype(np.float32)
    table = rows({"s3://b/a": 5})
    position = table.schema.get_field_index("embedding")
    values = pa.array(vectors.tolist(), table.schema.field(position).type)
    commit(tables, table.set_column(position, table.schema.field(position), values), "1")

    found = DeltaTable(tables.embeddings_uri(MODEL)).to_pyarrow_dataset().to_table().sort_by("segment_index")
    assert np.array_equal(np.array(found["embedding"].to_pylist(), dtype=np.float32), vectors)


def entry(uri: str, status: Status = Status.EMBEDDED, *, seen: datetime = NOW, model: str = MODEL) -> LedgerEntry:
    return LedgerEntry(
        media_uri=uri,
        model=model,
        media_type="video",
        status=status,
        first_seen_at=seen,
        etag="e1",
        size_bytes=1,
        last_modified=NOW,
        library="films",
        run_id="run",
        updated_at=seen,
    )


def test_an_absent_ledger_is_empty_and_one_that_cannot_be_read_is_an_error(tables, tmp_path):
    assert tables.read_ledger(MODEL, None).num_rows == 0

    log = tmp_path / "media" / "_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").write_text("no log")
    with pytest.raises(Exception, match=r".+"):
        tables.read_ledger(MODEL, None)


def test_the_ledger_has_one_row_an_object_and_model_and_keeps_when_it_was_first_seen(tables):
    tables.update_ledger(ledger_table([entry("s3://b/a", Status.FAILED), entry("s3://b/b")]))
    tables.update_ledger(ledger_table([entry("s3://b/a", model="other")]))
    later = datetime(2026, 12, 1, tzinfo=UTC)
    tables.update_ledger(ledger_table([entry("s3://b/a", seen=later), entry("s3://b/c", seen=later)]))

    found = {row["media_uri"]: row for row in tables.read_ledger(MODEL, None).to_pylist()}
    assert set(found) == {"s3://b/a", "s3://b/b", "s3://b/c"}
    assert found["s3://b/a"]["status"] == "embedded"
    assert found["s3://b/a"]["first_seen_at"] == NOW
    assert found["s3://b/a"]["updated_at"] == later
    assert tables.read_ledger("other", None).num_rows == 1


def test_the_ledger_is_read_below_prefixes_and_by_columns(tables):
    tables.update_ledger(ledger_table([entry("s3://b/a/1"), entry("s3://b/b/1"), entry("s3://c/a")]))

    found = tables.read_ledger(MODEL, ["s3://b/a/", "s3://c/"], ["media_uri"])
    assert sorted(found["media_uri"].to_pylist()) == ["s3://b/a/1", "s3://c/a"]
    assert found.column_names == ["media_uri"]
