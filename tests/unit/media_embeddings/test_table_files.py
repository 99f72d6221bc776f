from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media_embeddings import file_writing, table_files
from media_embeddings.table_changes import among, but
from media_embeddings.table_files import File, Files
from tests.unit.media_embeddings.test_file_writing import LAYOUT, rows


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, Files, File]:
    """Give a file of 40 objects in several row groups."""
    folder = tmp_path_factory.mktemp("table")
    files = Files(str(folder), {}, LAYOUT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_writing, "ROW_GROUP_BYTES", 1500)
        [add] = files.write(pa.concat_tables(rows(number, 1 + number % 4) for number in range(40)))
    assert pq.ParquetFile(folder / add.path).metadata.num_row_groups > 3
    return folder, files, File(add.path, add.size, dict(add.partition_values), None, None)


def uris(numbers) -> list[str]:
    return [f"s3://b/{number:05}" for number in sorted(numbers)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, 45)))
def test_a_file_is_parted_by_a_condition_into_what_is_read_and_the_rest(written, numbers):
    folder, files, file = written
    read = files.read(file, LAYOUT.schema.names, among(uris(numbers)))
    rest = files.write_rest(file, but(uris(numbers)))

    expected = [rows(number, 1 + number % 4) for number in range(40)]
    there = [table for number, table in enumerate(expected) if number in numbers]
    assert read.equals(pa.concat_tables([LAYOUT.schema.empty_table(), *there]))
    left = [table for number, table in enumerate(expected) if number not in numbers]
    if left:
        [add] = rest
        assert add.partition_values == file.partition_values
        assert pq.ParquetFile(folder / add.path).read().equals(pa.concat_tables(left).select(LAYOUT.stored.names))
    else:
        assert rest == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, 45)))
def test_the_rest_of_a_large_file_is_written_as_two_files_without_a_common_object(written, numbers):
    folder, files, file = written
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_files, "_LEAST_HALF_BYTES", 1)
        rest = files.write_rest(file, but(uris(numbers)), side_by_side=True)

    parts = [pq.ParquetFile(folder / add.path).read() for add in rest]
    left = [rows(number, 1 + number % 4).select(LAYOUT.stored.names) for number in range(40) if number not in numbers]
    assert pa.concat_tables([LAYOUT.stored.empty_table(), *parts]) == pa.concat_tables(
        [LAYOUT.stored.empty_table(), *left]
    )
    objects = [set(part["media_uri"].to_pylist()) for part in parts]
    # Of a half that is replaced as a whole nothing is left.
    assert len(objects) == 2 or len(numbers) >= 10
    assert len(objects) < 2 or objects[0].isdisjoint(objects[1])


def test_a_file_that_is_not_large_stays_one(written):
    _, files, file = written
    assert len(files.write_rest(file, but(uris([3])), side_by_side=True)) == 1


@pytest.mark.parametrize("most_rows", [1, 7, 10_000])
def test_all_rows_are_read_some_at_a_time_each_with_its_place(written, most_rows):
    _, files, file = written
    columns = ["media_uri", *LAYOUT.partitions]
    groups = list(files.read_groups(file, columns))
    batches = list(files.read_batches(file, columns, most_rows))

    assert all(0 < part.num_rows <= most_rows for _, _, part in batches)
    assert pa.concat_tables(part for _, _, part in batches).equals(pa.concat_tables(groups))
    for group, first, part in batches:
        assert part.equals(groups[group].slice(first, part.num_rows))


def test_rows_are_read_by_their_places(written):
    _, files, file = written
    columns = ["media_uri", *LAYOUT.partitions]
    groups = list(files.read_groups(file, columns))
    last = groups[2].num_rows - 1
    found = dict(files.read_places(file, columns, {2: [last, 0], 0: [1]}))

    assert found == {2: groups[2].take([last, 0]), 0: groups[0].take([1])}


def test_files_are_reached_with_the_options_of_the_moment(tmp_path, monkeypatch):
    made, now = [], {"AWS_SESSION_TOKEN": "first"}
    original = table_files.file_system

    def observed(uri, options):
        made.append(options["AWS_SESSION_TOKEN"])
        return original(uri, {})

    monkeypatch.setattr(table_files, "file_system", observed)
    files = Files(str(tmp_path), lambda: now, LAYOUT)
    files.write(rows(1, 1))
    files.write(rows(2, 1))
    now["AWS_SESSION_TOKEN"] = "next"
    files.write(rows(3, 1))

    assert made == ["first", "next"]
