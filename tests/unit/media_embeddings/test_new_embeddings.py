from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media_embeddings import file_writing
from media_embeddings.table_files import Files
from media_embeddings.tables import Tables
from tests.unit.media_embeddings.test_tables import DIMENSION, MODEL, commit, content, files, rows


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(str(tmp_path), {})


def add(new, objects: dict[str, int], **options) -> None:
    for uri, segments in objects.items():
        new.add(rows({uri: segments}, **options))


def stream(tables: Tables, objects: dict[str, int], *commit_ids: str, drop=(), **options):
    with tables.new_embeddings(MODEL, DIMENSION) as new:
        add(new, objects, **options)
        new.drop(drop)
        return new.commit(commit_ids)


def test_readers_see_nothing_of_what_is_added_until_it_is_committed_and_then_all_of_it(tables, monkeypatch):
    monkeypatch.setattr(file_writing, "FILE_BYTES", 2000)
    monkeypatch.setattr(file_writing, "ROW_GROUP_BYTES", 500)
    commit(tables, rows({"s3://b/a": 3, "s3://b/z": 1}), "1")
    with tables.new_embeddings(MODEL, DIMENSION) as new:
        add(new, {"s3://b/a": 1, "s3://b/b": 30, "s3://b/c": 30}, tag="e2")
        assert content(tables) == {"s3://b/a": [(0, "e1"), (1, "e1"), (2, "e1")], "s3://b/z": [(0, "e1")]}
        made = new.commit(["2"])

    assert (made.version, made.rows, made.replaced) == (2, 61, 1)
    expected = {"s3://b/a": [(0, "e2")], "s3://b/z": [(0, "e1")]}
    expected |= {uri: [(index, "e2") for index in range(30)] for uri in ("s3://b/b", "s3://b/c")}
    assert content(tables) == expected


def test_what_is_given_up_is_never_seen(tables):
    commit(tables, rows({"s3://b/a": 3}), "1")
    with tables.new_embeddings(MODEL, DIMENSION) as new:
        add(new, {"s3://b/a": 1})

    assert content(tables) == {"s3://b/a": [(0, "e1"), (1, "e1"), (2, "e1")]}


def test_a_commit_that_is_repeated_under_its_first_id_changes_nothing(tables):
    assert not stream(tables, {"s3://b/a": 3}, "rows", "merge").repeated
    assert tables.embeddings_commit(MODEL, "rows") == tables.embeddings_commit(MODEL, "merge") == 1

    assert stream(tables, {"s3://b/a": 1}, "rows", "merge", tag="e2").repeated
    # The second id names who commits, and not what: it may come again.
    assert stream(tables, {"s3://b/a": 1}, "other rows", "merge", tag="e2").version == 2
    assert content(tables) == {"s3://b/a": [(0, "e2")]}


def test_a_table_that_is_not_there_has_no_commits_and_is_made_by_the_first_rows(tables, tmp_path):
    assert tables.embeddings_commit(MODEL, "rows") is None
    assert stream(tables, {}, "rows") is None
    assert list(tmp_path.iterdir()) == []

    assert stream(tables, {"s3://b/a": 1}, "rows").version == 1


def test_dropped_objects_do_not_land_and_those_beside_them_do(tables, monkeypatch):
    monkeypatch.setattr(file_writing, "FILE_BYTES", 1500)
    commit(tables, rows({"s3://b/02": 3}), "1")
    objects = {f"s3://b/{number:02}": 2 for number in range(12)}
    made = stream(tables, objects, "2", drop=["s3://b/02", "s3://b/07", "s3://b/absent"], tag="e2")

    assert (made.rows, made.replaced) == (20, 0)
    expected = {uri: [(0, "e2"), (1, "e2")] for uri in objects if uri not in {"s3://b/02", "s3://b/07"}}
    assert content(tables) == expected | {"s3://b/02": [(index, "e1") for index in range(3)]}


def test_if_all_are_dropped_nothing_is_committed(tables):
    assert stream(tables, {"s3://b/a": 2}, "1", drop=["s3://b/a"]) is None
    assert tables.embeddings_commit(MODEL, "1") is None


def test_objects_that_come_out_of_order_land_as_well(tables):
    stream(tables, {"s3://b/c": 1, "s3://b/a": 2, "s3://b/b": 1}, "1")
    stream(tables, {"s3://b/b": 2}, "2", tag="e2")

    assert content(tables) == {
        "s3://b/a": [(0, "e1"), (1, "e1")],
        "s3://b/b": [(0, "e2"), (1, "e2")],
        "s3://b/c": [(0, "e1")],
    }


def test_of_a_file_whose_objects_are_all_replaced_no_vector_is_read(tables, monkeypatch):
    stream(tables, {"s3://b/a": 3, "s3://b/b": 2}, "1")
    read = []
    original = Files.read

    def observed(self, file, columns, condition=None):
        read.append(columns)
        return original(self, file, columns, condition)

    monkeypatch.setattr(Files, "read", observed)
    monkeypatch.setattr(Files, "write_rest", lambda *_, **__: pytest.fail("there is no rest"))
    made = stream(tables, {"s3://b/a": 1, "s3://b/b": 1, "s3://b/c": 1}, "2", tag="e2")

    assert (made.replaced, read) == (2, [["media_uri"]])
    assert content(tables) == {f"s3://b/{name}": [(0, "e2")] for name in "abc"}


def test_vectors_of_another_length_an_object_that_comes_again_and_a_segment_that_is_there_twice_are_refused(tables):
    with tables.new_embeddings(MODEL, DIMENSION + 1) as new, pytest.raises(ValueError, match="vectors of 5 numbers"):
        new.add(rows({"s3://b/a": 1}))
    with tables.new_embeddings(MODEL, DIMENSION) as new:
        new.add(rows({"s3://b/a": 1}))
        with pytest.raises(ValueError, match="of another: s3://b/a"):
            new.add(rows({"s3://b/a": 1}))
        with pytest.raises(ValueError, match="of another: s3://b/b"):
            new.add(pa.concat_tables([rows({"s3://b/b": 1}), rows({"s3://b/b": 1})]))


def test_a_null_where_a_value_is_promised_is_refused(tables):
    table = rows({"s3://b/a": 1})
    position = table.schema.get_field_index("etag")
    missing = table.set_column(position, table.schema.field(position), pa.nulls(1, pa.string()))

    with tables.new_embeddings(MODEL, DIMENSION) as new:
        new.add(missing)
        with pytest.raises(ValueError, match="etag"):
            new.commit(["1"])
    assert content(tables) == {}


def test_while_others_commit_nothing_is_written_again(tables, monkeypatch):
    commit(tables, rows({"s3://b/a": 1}), "1")
    refused = []
    create = DeltaTable.create_write_transaction

    def after_other_writers(table, *arguments, **options):
        if len(refused) < 3:
            refused.append(True)
            raise_after(lambda: create(table, *arguments, **options), f"other {len(refused)}")
        return create(table, *arguments, **options)

    def raise_after(tried, name):
        with monkeypatch.context() as patch:
            patch.setattr(DeltaTable, "create_write_transaction", create)
            commit(tables, rows({f"s3://b/{name}": 1}, tag="other"), name)
        with pytest.raises(CommitFailedError):
            tried()
        raise CommitFailedError("refused")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", after_other_writers)
    made = stream(tables, {"s3://b/a": 1, "s3://b/other 2": 1}, "2", tag="e2")

    assert (made.version, made.replaced) == (5, 2)
    assert content(tables) == {
        "s3://b/a": [(0, "e2")],
        "s3://b/other 1": [(0, "other")],
        "s3://b/other 2": [(0, "e2")],
        "s3://b/other 3": [(0, "other")],
    }
    # One of each commit: of the first, of the three others, and of this one.
    assert len(list(Path(tables.embeddings_uri(MODEL)).rglob("*.parquet"))) == 5


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.integers(0, 30).map("s3://b/{:02}".format), st.integers(1, 12), min_size=1),
            st.sets(st.integers(0, 30).map("s3://b/{:02}".format), max_size=3),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_the_table_holds_the_latest_rows_of_every_object_whole(tmp_path_factory, commits):
    tables = Tables(str(tmp_path_factory.mktemp("tables")), {})
    expected: dict[str, list[tuple[int, str]]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_writing, "FILE_BYTES", 3000)
        patch.setattr(file_writing, "ROW_GROUP_BYTES", 1000)
        for number, (objects, dropped) in enumerate(commits):
            stream(tables, dict(sorted(objects.items())), str(number), drop=dropped, tag=str(number))
            expected |= {
                uri: [(index, str(number)) for index in range(segments)]
                for uri, segments in objects.items()
                if uri not in dropped
            }
    assert (content(tables) if expected else {}) == expected


def test_vectors_come_back_as_they_were(tables):
    vectors = np.random.default_rng(1).normal(size=(5, DIMENSION)).astype(np.float32)
    table = rows({"s3://b/a": 5})
    position = table.schema.get_field_index("embedding")
    values = pa.array(vectors.tolist(), table.schema.field(position).type)
    with tables.new_embeddings(MODEL, DIMENSION) as new:
        new.add(table.set_column(position, table.schema.field(position), values))
        new.commit(["1"])

    found = DeltaTable(tables.embeddings_uri(MODEL)).to_pyarrow_dataset().to_table().sort_by("segment_index")
    assert np.array_equal(np.array(found["embedding"].to_pylist(), dtype=np.float32), vectors)
    assert len(files(tables)) == 1
