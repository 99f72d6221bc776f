import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.fs import DeltaStorageHandler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media_embeddings.ledger import LedgerEntry, ledger_table
from media_embeddings.planning import Status
from media_embeddings.schemas import LEDGER_SCHEMA, embeddings_schema
from media_embeddings.tables import Tables, TableUnreadableError

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


def test_deleted_objects_lose_all_their_rows_in_one_commit_and_the_others_keep_theirs(tables):
    commit(tables, rows({"s3://b/a": 3, "s3://b/b": 2}, month="2026-10"), "1")
    commit(tables, rows({"s3://b/c": 2}), "2")
    commit(tables, rows({"s3://b/d": 2}), "3")
    before = files(tables)

    made = tables.delete_embeddings(MODEL, DIMENSION, ["s3://b/a", "s3://b/absent", "s3://b/c"], "deletion")

    assert made is not None
    assert (made.version, made.replaced) == (4, 2)
    assert content(tables) == {"s3://b/b": [(0, "e1"), (1, "e1")], "s3://b/d": [(0, "e1"), (1, "e1")]}
    # The file of c held nothing else and is gone, that of a is there with the rest, that of d is untouched.
    assert (len(files(tables)), len(files(tables) & before)) == (2, 1)
    again = tables.delete_embeddings(MODEL, DIMENSION, ["s3://b/b"], "deletion")
    assert again is not None
    assert again.repeated
    assert "s3://b/b" in content(tables)


def test_where_there_is_no_table_nothing_is_deleted_and_none_is_made(tables, tmp_path):
    assert tables.delete_embeddings(MODEL, DIMENSION, ["s3://b/a"], "deletion") is None
    assert list(tmp_path.iterdir()) == []


def ranges(tables: Tables) -> list[tuple[str, str]]:
    found = pa.table(DeltaTable(tables.embeddings_uri(MODEL)).get_add_actions(flatten=True))
    return sorted(zip(found["min.media_uri"].to_pylist(), found["max.media_uri"].to_pylist(), strict=True))


def test_a_few_changed_objects_among_many_new_ones_leave_every_file_sorted_and_its_range_narrow(tables):
    for number in range(3):
        commit(tables, rows({f"s3://b/{number}/{name}": 2 for name in "abc"}), str(number))

    changed = {f"s3://b/{number}/b": 1 for number in range(3)}
    commit(tables, rows(changed | {f"s3://b/9/{number:02}": 1 for number in range(20)}, tag="e2"), "replace")

    assert ranges(tables) == [
        ("s3://b/0/a", "s3://b/0/c"),
        ("s3://b/0/b", "s3://b/9/19"),
        ("s3://b/1/a", "s3://b/1/c"),
        ("s3://b/2/a", "s3://b/2/c"),
    ]
    for file in files(tables):
        found = pq.read_table(file, columns=["media_uri", "segment_index"]).to_pylist()
        keys = [(row["media_uri"], row["segment_index"]) for row in found]
        assert keys == sorted(keys)


def test_rows_that_come_in_any_order_are_sorted_and_lie_in_their_partitions(tables):
    mixed = pa.concat_tables(
        [rows({"s3://b/z": 2}), rows({"s3://b/y": 1}, media_type="audio"), rows({"s3://b/a": 2}, month="2026-10")]
    )
    commit(tables, mixed.take([4, 0, 2, 3, 1]), "1")

    assert content(tables) == {
        "s3://b/a": [(0, "e1"), (1, "e1")],
        "s3://b/y": [(0, "e1")],
        "s3://b/z": [(0, "e1"), (1, "e1")],
    }
    folders = {tuple(Path(file).parts[-3:-1]) for file in files(tables)}
    assert folders == {
        ("media_type=video", "embedded_month=2026-10"),
        ("media_type=video", "embedded_month=2026-11"),
        ("media_type=audio", "embedded_month=2026-11"),
    }


def test_vectors_of_another_length_and_a_segment_that_is_there_twice_are_refused(tables):
    with pytest.raises(ValueError, match=f"vectors of {DIMENSION + 1} numbers"):
        tables.commit_embeddings(MODEL, DIMENSION + 1, rows({"s3://b/a": 1}), "1")
    twice = pa.concat_tables([rows({"s3://b/a": 1}), rows({"s3://b/a": 1})])
    with pytest.raises(ValueError, match="media_uri and segment_index of another, first s3://b/a"):
        commit(tables, twice, "2")
    with pytest.raises(ValueError, match="first s3://b/a"):
        tables.update_ledger(ledger_table([entry("s3://b/a"), entry("s3://b/a", Status.FAILED)]))


def test_a_null_where_a_value_is_promised_is_refused(tables):
    table = rows({"s3://b/a": 1})
    position = table.schema.get_field_index("etag")
    missing = table.set_column(position, table.schema.field(position), pa.nulls(1, pa.string()))

    with pytest.raises(ValueError, match="etag"):
        commit(tables, missing, "1")
    assert content(tables) == {}


def test_writers_that_meet_in_one_file_lose_and_duplicate_nothing(tables):
    commit(tables, rows({f"s3://b/{writer}": 2 for writer in range(4)}), "start")
    together, problems = threading.Barrier(4), []

    def write(writer: int) -> None:
        try:
            together.wait(20)
            for number in range(3):
                objects = {f"s3://b/{writer}": 1, f"s3://b/{writer}/{number}": 1, "s3://b/shared": 2}
                commit(tables, rows(objects, tag=f"{writer}-{number}"), f"{writer}-{number}")
        except Exception as error:  # noqa: BLE001 - shown below
            problems.append(error)

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)

    assert problems == []
    found = content(tables)
    assert len({tag for _, tag in found.pop("s3://b/shared")}) == 1
    expected = {f"s3://b/{writer}": [(0, f"{writer}-2")] for writer in range(4)}
    expected |= {f"s3://b/{writer}/{number}": [(0, f"{writer}-{number}")] for writer in range(4) for number in range(3)}
    assert found == expected


def test_a_commit_that_meets_another_writer_writes_its_rows_once(tables, monkeypatch):
    commit(tables, rows({"s3://b/a": 1}), "1")
    interrupted = []
    create = DeltaTable.create_write_transaction

    def after_another_writer(table, *arguments, **options):
        if not interrupted:
            interrupted.append(True)
            commit(tables, rows({"s3://b/b": 1}, tag="other"), "other")
        return create(table, *arguments, **options)

    monkeypatch.setattr(DeltaTable, "create_write_transaction", after_another_writer)
    made = commit(tables, rows({"s3://b/a": 1, "s3://b/b": 1}, tag="e2"), "2")

    assert content(tables) == {"s3://b/a": [(0, "e2")], "s3://b/b": [(0, "e2")]}
    assert (made.version, made.replaced) == (3, 2)
    written = {str(path) for path in Path(tables.embeddings_uri(MODEL)).rglob("*.parquet")}
    # Of the first commit, of the other writer, and of this one: nothing was written for the try that was refused.
    assert len(written) == 3


def test_a_commit_that_is_refused_for_another_reason_is_not_tried_again(tables, monkeypatch):
    commit(tables, rows({"s3://b/a": 1}), "1")
    tries = []

    def refused(*_arguments, **_options):
        tries.append(True)
        raise CommitFailedError("the log may not be written")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", refused)
    with pytest.raises(CommitFailedError, match="may not be written"):
        commit(tables, rows({"s3://b/a": 1}), "2")
    assert len(tries) == 1


NASTY = ["it's", 'a"b', "50%20off", "a+b c", "naïve-ß-日本", "a\\b", "'; DROP TABLE x; --", "{b}", "a'''b", "tab\tb"]


def test_keys_with_quotes_percent_signs_and_other_letters_are_replaced_exactly(tables):
    commit(tables, rows({f"s3://b/{name}": 2 for name in NASTY}), "1")

    for name in NASTY:
        commit(tables, rows({f"s3://b/{name}": 1}, tag="e2"), f"2 {name}")

    assert content(tables) == {f"s3://b/{name}": [(0, "e2")] for name in NASTY}


# S3 keys may have nearly every letter: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
KEYS = st.one_of(
    st.sampled_from(["a", "b", "c'd", "é", "%", "*", "_", "\\", "a b", "x" * 1000, "\U0010ffff", "a\nb"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=5),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    with pytest.raises(DeltaError):
        tables.read_ledger(MODEL, None)


def cut_off_last(log: Path) -> None:
    last = max(log.glob("*.json"))
    last.write_bytes(last.read_bytes()[:-40])


def remove_first(log: Path) -> None:
    min(log.glob("*.json")).unlink()


def remove_all(log: Path) -> None:
    for file in log.iterdir():
        file.unlink()


def remove_data(log: Path) -> None:
    for file in log.parent.rglob("*.parquet"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (cut_off_last, DeltaError),
        (remove_first, DeltaError),
        (remove_all, TableUnreadableError),
        (remove_data, FileNotFoundError),
    ],
)
def test_a_damaged_ledger_is_never_taken_for_an_empty_one(tables, tmp_path, damage, error):
    tables.update_ledger(ledger_table([entry("s3://b/a")]))
    damage(tmp_path / "media" / "_delta_log")

    with pytest.raises(error):
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


def test_the_ledger_is_read_by_objects_of_one_model(tables):
    tables.update_ledger(ledger_table([entry("s3://b/a"), entry("s3://b/b"), entry("s3://b/c")]))
    tables.update_ledger(ledger_table([entry("s3://b/a", model="other")]))

    found = tables.ledger_rows(MODEL, ["s3://b/a", "s3://b/c", "s3://b/x"])
    assert sorted(found["media_uri"].to_pylist()) == ["s3://b/a", "s3://b/c"]
    assert set(found["model"].to_pylist()) == {MODEL}


def test_prefixes_are_plain_text_and_leave_out_what_only_looks_alike(tables):
    uris = ["s3://b/a/1", "s3://b/a_1", "s3://b/a%/1", "s3://b/a%/é", "s3://b/a%0/1", "s3://b/A%/1"]
    for uri in uris:
        tables.update_ledger(ledger_table([entry(uri)]))

    found = tables.read_ledger(MODEL, ["s3://b/a%/"], ["media_uri"])
    assert sorted(found["media_uri"].to_pylist()) == ["s3://b/a%/1", "s3://b/a%/é"]
    assert tables.read_ledger(MODEL, []).num_rows == 0


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.dictionaries(KEYS, st.sampled_from(Status), min_size=1, max_size=4), st.booleans()), max_size=5
    )
)
def test_the_ledger_has_the_latest_state_that_stands_of_every_object_and_the_first_time_it_was_seen(
    tmp_path_factory, updates
):
    tables = Tables(str(tmp_path_factory.mktemp("tables")), {})
    expected: dict[str, dict[str, tuple[Status, datetime]]] = {MODEL: {}, "other": {}}
    for number, (states, other) in enumerate(updates):
        model, now = ("other" if other else MODEL), datetime(2026, 12, 1 + number, tzinfo=UTC)
        tables.update_ledger(
            ledger_table([entry(key, status, seen=now, model=model) for key, status in states.items()])
        )
        for key, status in states.items():
            before, first_seen = expected[model].get(key, (status, now))
            # What is embedded is not failed by another attempt at the same content.
            stands = before is Status.EMBEDDED and status in (Status.FAILED, Status.QUARANTINED)
            expected[model][key] = before if stands else status, first_seen

    for model, objects in expected.items():
        found = tables.read_ledger(model, None, ["media_uri", "status", "first_seen_at"]).to_pylist()
        assert len(found) == len(objects)
        assert {row["media_uri"]: (row["status"], row["first_seen_at"]) for row in found} == objects


def test_a_ledger_of_many_objects_is_replaced_at_once(tables):
    uris = [f"s3://b/{number:06}" for number in range(100_000)]
    column = LEDGER_SCHEMA.get_field_index("media_uri")
    one = ledger_table([entry("s3://b/x")]).take([0] * len(uris))
    many = one.set_column(column, LEDGER_SCHEMA.field(column), pa.array(uris))
    tables.update_ledger(many)

    made = tables.update_ledger(many)

    assert made is not None
    assert made.replaced == len(uris)
    assert tables.read_ledger(MODEL, None, ["media_uri"]).num_rows == len(uris)
    # Every reader and writer reads the log: it must not grow with the number of objects.
    assert all(file.stat().st_size < 20_000 for file in Path(tables.ledger_uri, "_delta_log").iterdir())


def test_files_of_other_engines_are_replaced_as_well(tables):
    """Others may leave statistics out or cut them off, and have no place for a column that came later."""
    commit(tables, rows({"s3://b/a": 1}), "1")
    uri, long = tables.embeddings_uri(MODEL), "s3://b/" + "x" * 200
    write_deltalake(uri, rows({long + "1": 1, long + "2": 1}), mode="append")
    table = DeltaTable(uri)
    table.alter.set_table_properties({"delta.dataSkippingStatsColumns": "segment_index"})
    write_deltalake(table, rows({"s3://b/y": 1, "s3://b/z": 1}), mode="append")

    commit(tables, rows({long + "2": 2, "s3://b/y": 2}, tag="e2"), "2")

    assert content(tables) == {
        "s3://b/a": [(0, "e1")],
        long + "1": [(0, "e1")],
        long + "2": [(0, "e2"), (1, "e2")],
        "s3://b/y": [(0, "e2"), (1, "e2")],
        "s3://b/z": [(0, "e1")],
    }


def test_the_log_gets_checkpoints_and_they_keep_the_commit_ids(tables):
    for number in range(100):
        commit(tables, rows({f"s3://b/{number}": 1}), str(number))

    assert list(Path(tables.embeddings_uri(MODEL), "_delta_log").glob("*.checkpoint.parquet"))
    assert commit(tables, rows({"s3://b/7": 1}, tag="again"), "7").repeated


def test_files_are_read_by_pythons_threads_alone(tables, monkeypatch):
    """Arrow's threads may let go of a Python file while the interpreter exits, which aborts the process."""
    for number in range(4):
        tables.update_ledger(ledger_table([entry(f"s3://b/{number}")]))
    threads = set()

    class Observed:
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            threads.add(type(threading.current_thread()).__name__)
            return getattr(self._file, name)

    monkeypatch.setattr(
        DeltaStorageHandler,
        "open_input_file",
        lambda handler, path: pa.PythonFile(Observed(handler._handler.open_input_file(path))),
    )
    assert tables.read_ledger(MODEL, None).num_rows == 4
    tables.update_ledger(ledger_table([entry("s3://b/1")]))

    assert threads
    # That is what Python calls a thread that it did not start.
    assert "_DummyThread" not in threads


def test_a_ledger_of_an_earlier_version_gets_the_columns_that_it_lacks(tmp_path):
    tables = Tables(str(tmp_path), {})
    old = ledger_table([entry("s3://films/old")]).drop_columns(["absent_options"])
    write_deltalake(tables.ledger_uri, old, partition_by=["model"])

    tables.update_ledger(ledger_table([replace(entry("s3://films/new"), absent_options="audio")]))

    rows = {row["media_uri"]: row["absent_options"] for row in tables.read_ledger(MODEL, None).to_pylist()}
    assert rows == {"s3://films/old": None, "s3://films/new": "audio"}
    assert "absent_options" in {field.name for field in DeltaTable(tables.ledger_uri).schema().fields}


def test_what_another_engine_has_left_of_a_file_is_read_and_replaced(tables):
    tables.commit_embeddings(MODEL, DIMENSION, rows({"s3://b/a": 3, "s3://b/b": 2}), "1")
    # Its strings are views, which few functions of Arrow take.
    DeltaTable(tables.embeddings_uri(MODEL)).delete("media_uri = 's3://b/a'")

    assert (
        tables.read_embeddings(MODEL, ["s3://b/a", "s3://b/b"], ["media_uri"])["media_uri"].to_pylist()
        == ["s3://b/b"] * 2
    )
    assert tables.commit_embeddings(MODEL, DIMENSION, rows({"s3://b/b": 4}), "2").replaced == 1
