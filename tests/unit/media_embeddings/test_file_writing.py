import json
import threading
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake.fs import DeltaStorageHandler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow.fs import PyFileSystem

from media_embeddings import file_writing
from media_embeddings.file_writing import FileWriter, RollingWriter, file_system
from media_embeddings.table_layout import Layout

LAYOUT = Layout(
    pa.schema(
        [
            pa.field("media_uri", pa.string(), nullable=False),
            pa.field("kind", pa.string(), nullable=False),
            pa.field("segment_index", pa.int32(), nullable=False),
            pa.field("embedding", pa.list_(pa.field("element", pa.float32(), nullable=False)), nullable=False),
        ]
    ),
    ("kind",),
    ("media_uri", "segment_index"),
)


def rows(number: int, segments: int, kind: str = "video") -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"media_uri": f"s3://b/{number:05}", "kind": kind, "segment_index": index, "embedding": [0.5] * 8}
            for index in range(segments)
        ],
        schema=LAYOUT.schema,
    )


@pytest.fixture
def folder(tmp_path: Path):
    return tmp_path, file_system(str(tmp_path), {})


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from(["video", "audio"])), min_size=1, max_size=30))
def test_every_object_lies_in_one_file_and_every_file_holds_its_own_range_in_order(tmp_path_factory, objects):
    folder = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_writing, "FILE_BYTES", 3000)
        patch.setattr(file_writing, "ROW_GROUP_BYTES", 1000)
        with RollingWriter(lambda: file_system(str(folder), {}), LAYOUT) as writer:
            for number, (segments, kind) in enumerate(objects):
                writer.add(rows(number, segments, kind))
            added = writer.finish()

    found = []
    for add in added:
        content = pq.ParquetFile(folder / add.path).read().to_pylist()
        keys = [(row["media_uri"], row["segment_index"]) for row in content]
        uris = {uri for uri, _ in keys}
        statistics = json.loads(add.stats)
        assert keys == sorted(keys)
        assert (statistics["numRecords"], add.size) == (len(keys), (folder / add.path).stat().st_size)
        assert statistics["minValues"]["media_uri"] == keys[0][0]
        assert statistics["maxValues"] == {"media_uri": keys[-1][0], "segment_index": max(index for _, index in keys)}
        # A file is larger only if one object is.
        assert len(uris) == 1 or pa.table({"u": [uri for uri, _ in keys]}).nbytes <= 3000
        found.append((add.partition_values["kind"], min(uris), max(uris), keys))
    for kind in ("video", "audio"):
        ranges = [(least, greatest) for of, least, greatest, _ in found if of == kind]
        assert all(one[1] < other[0] for one, other in pairwise(ranges))
    expected = {
        (f"s3://b/{number:05}", index) for number, (segments, _) in enumerate(objects) for index in range(segments)
    }
    written = [key for *_, keys in found for key in keys]
    assert (set(written), len(written)) == (expected, len(expected))


def test_rows_that_are_many_are_written_in_groups_and_read_back_as_they_were(folder):
    path, filesystem = folder
    file = FileWriter(filesystem, LAYOUT, {"kind": "video"})
    file.write(rows(1, 3))
    file.write(rows(2, 2))
    add = file.close()

    parquet = pq.ParquetFile(path / add.path)
    assert parquet.metadata.num_row_groups == 2
    assert parquet.read().equals(pa.concat_tables([rows(1, 3), rows(2, 2)]).select(LAYOUT.stored.names))


def test_without_rows_no_file_is_written(folder):
    path, filesystem = folder
    with RollingWriter(lambda: filesystem, LAYOUT) as writer:
        assert writer.finish() == []
    assert list(path.rglob("*.parquet")) == []


def write_and_fail(filesystem):
    with RollingWriter(lambda: filesystem, LAYOUT) as writer:
        writer.add(rows(1, 3))
        raise RuntimeError("of the reader")


def test_a_writer_that_is_left_in_an_error_ends_its_threads_and_hands_on_the_error(folder, monkeypatch):
    path, filesystem = folder
    monkeypatch.setattr(file_writing, "ROW_GROUP_BYTES", 1)
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="of the reader"):
        write_and_fail(filesystem)

    assert threading.active_count() == before
    # Closed, and in no commit.
    assert len(list(path.rglob("*.parquet"))) == 1


class FullDisk(DeltaStorageHandler):
    class Sink:
        def write(self, content):
            raise OSError("the store takes no more")

        def close(self):
            """Close nothing."""

    def open_output_stream(self, path, metadata=None):
        return pa.PythonFile(file_writing._BehindStream(self.Sink()), mode="w")


def write(filesystem):
    with RollingWriter(lambda: filesystem, LAYOUT) as writer:
        writer.add(rows(1, 3))
        writer.finish()


def test_what_the_store_refuses_is_an_error_although_it_is_written_behind(tmp_path):
    with pytest.raises(OSError, match="takes no more"):
        write(PyFileSystem(FullDisk(str(tmp_path), {})))


def test_where_the_reader_fails_too_a_file_that_could_not_be_closed_is_in_the_log(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(file_writing, "FILE_BYTES", 1)
    monkeypatch.setattr(file_writing, "ROW_GROUP_BYTES", 1)
    filesystem = PyFileSystem(FullDisk(str(tmp_path), {}))

    def two_files_and_fail():
        with RollingWriter(lambda: filesystem, LAYOUT) as writer:
            writer.add(rows(1, 3))
            writer.add(rows(2, 3))
            raise RuntimeError("of the reader")

    with pytest.raises(RuntimeError, match="of the reader"):
        two_files_and_fail()
    assert [record.message for record in caplog.records if "the store takes no more" in record.message]


def test_an_end_that_the_store_is_slow_to_take_holds_up_no_rows(tmp_path, monkeypatch):
    """But the end of the next file waits for it."""
    monkeypatch.setattr(file_writing, "FILE_BYTES", 1)
    monkeypatch.setattr(file_writing, "ROW_GROUP_BYTES", 1)
    may_close, original = threading.Event(), FileWriter.close
    monkeypatch.setattr(FileWriter, "close", lambda self: may_close.wait(60) and original(self))
    with RollingWriter(lambda: file_system(str(tmp_path), {}), LAYOUT) as writer:
        for number in range(2):
            writer.add(rows(number, 3))
        may_close.set()
        writer.add(rows(2, 3))
        added = writer.finish()
    assert [json.loads(add.stats)["minValues"]["media_uri"] for add in added] == [f"s3://b/{n:05}" for n in range(3)]
