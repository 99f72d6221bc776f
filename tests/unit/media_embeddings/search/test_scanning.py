"""Scanning against brute force, over files and row groups cut in any way."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media_embeddings.library import Library
from media_embeddings.media import MediaType
from media_embeddings.search.cosine import exact_cosines, unit
from media_embeddings.search.queries import Narrowing
from media_embeddings.search.scanning import (
    SearchedTable,
    TableUnreachableError,
    VectorLengthError,
    nearest,
    rows_of,
)
from media_embeddings.table_files import File

DIMENSION = 4
VECTOR = pa.list_(pa.field("element", pa.float32(), nullable=False))
COLUMNS = pa.schema(
    [
        ("media_uri", pa.string()),
        ("media_type", pa.string()),
        ("segment_index", pa.int32()),
        ("start_sec", pa.float64()),
        ("end_sec", pa.float64()),
        ("start_char", pa.int32()),
        ("end_char", pa.int32()),
        ("embedding_option", pa.string()),
        ("embedding_scope", pa.string()),
        ("embedding", VECTOR),
    ]
)


@dataclass
class FilesInMemory:
    """Row groups by file, in the place of a table's files."""

    groups: dict[str, list[pa.Table]]
    read: list[tuple[str, ...]] = field(default_factory=list)
    error: Exception | None = None
    rows_at_once: int = 3

    def read_batches(self, file, columns, most_rows):
        self.read.append((file.path, *columns))
        if self.error is not None:
            raise self.error
        for number, rows in enumerate(self.groups[file.path]):
            for first in range(0, rows.num_rows, self.rows_at_once):
                yield number, first, rows.select(list(columns)).slice(first, self.rows_at_once)

    def read_places(self, file, columns, places):
        self.read.append((file.path, *columns))
        for number, rows in places.items():
            yield number, self.groups[file.path][number].select(list(columns)).take(rows)


def library(name="films", prefix="s3://media-bucket/", **settings):
    return Library(
        name=name,
        sources=[prefix],
        region=settings.pop("region", "us-east-1"),
        model="marengo-3-0",
        tables=f"s3://vectors-bucket/{name}",
        work="s3://vectors-bucket/work",
        **settings,
    )


def segment(uri, number, vector, *, media_type="video", option="visual", scope="clip"):
    return {
        "media_uri": uri,
        "media_type": media_type,
        "segment_index": number,
        "embedding": vector,
        "embedding_option": option,
        "embedding_scope": scope,
    }


def table(files: list[list[list[dict]]], libraries=None, media_type="video") -> SearchedTable:
    """Return a table of files of row groups of segments."""
    groups = {
        f"file-{number}": [pa.Table.from_pylist(group, schema=COLUMNS) for group in file]
        for number, file in enumerate(files)
    }
    parts = []
    for path, tables in groups.items():
        uris = [uri for rows in tables for uri in rows["media_uri"].to_pylist()]
        types = [value for rows in tables for value in rows["media_type"].to_pylist()] or [media_type]
        parts.append(File(path, 1, {"media_type": types[0]}, min(uris, default=None), max(uris, default=None)))
    return SearchedTable(tuple(libraries or [library()]), FilesInMemory(groups), tuple(parts))


def found(tables, queries, count=3, narrowing=None, but=None):
    candidates, _ = nearest(tables, unit(np.array(queries)), narrowing or Narrowing(), count, but)
    return [(one.media_uri, one.segment_index) for one in candidates]


# Few numbers, so that many cosines are equal, and the zero vector comes up.
VECTORS = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=DIMENSION, max_size=DIMENSION)
QUERIES = st.lists(VECTORS.filter(any), min_size=1, max_size=3)


def cut(data, rows):
    """Draw a way to cut rows into files and row groups, in any order."""
    files, rest = [], data.draw(st.permutations(rows))
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        file, groups = list(rest[:size]), []
        while file:
            each = data.draw(st.integers(1, len(file)))
            groups.append(file[:each])
            file = file[each:]
        files.append(groups)
        rest = rest[size:]
    return files


@settings(deadline=None)
@given(st.lists(VECTORS, max_size=40), QUERIES, st.integers(1, 12), st.data())
def test_the_hits_are_those_of_brute_force_however_the_tables_are_cut(vectors, queries, count, data):
    rows = [segment(f"s3://media-bucket/{n % 5}", n // 5, vector) for n, vector in enumerate(vectors)]
    first = data.draw(st.integers(0, len(rows)))
    tables = [table(cut(data, rows[:first])), table(cut(data, rows[first:]))]
    candidates, compared = nearest(tables, unit(np.array(queries)), Narrowing(), count)

    matrix = np.array(vectors, dtype=np.float32).reshape(-1, DIMENSION)
    scores = exact_cosines(matrix, unit(np.array(queries)))
    order = sorted(range(len(rows)), key=lambda n: (-scores[n], rows[n]["media_uri"], rows[n]["segment_index"]))
    oracle = [n for n in order if scores[n] > -np.inf][:count]
    assert [(one.media_uri, one.segment_index, one.score) for one in candidates] == [
        (rows[n]["media_uri"], rows[n]["segment_index"], scores[n]) for n in oracle
    ]
    shown = rows_of(tables, candidates)
    assert [(one["media_uri"], one["segment_index"]) for one in shown] == [
        (rows[n]["media_uri"], rows[n]["segment_index"]) for n in oracle
    ]
    assert compared == {"films": len(rows)}


def test_vectors_and_what_tells_rows_apart_are_read_of_all_and_the_rest_only_of_files_with_hits():
    searched = table(
        [
            [[segment("s3://media-bucket/a", 0, [1.0, 0, 0, 0])]],
            [[segment("s3://media-bucket/b", 0, [0, 1.0, 0, 0])]],
        ]
    )
    candidates, _ = nearest([searched], unit(np.array([[1.0, 0, 0, 0]])), Narrowing(), 1)
    rows_of([searched], candidates)

    reads = searched.files.read
    assert {columns for _, *columns in map(tuple, reads[:2]) for columns in columns} == {
        "embedding",
        "media_uri",
        "segment_index",
    }
    [(path, *columns)] = reads[2:]
    assert path == "file-0"
    assert "embedding" not in columns


def test_the_nearest_of_several_query_vectors_counts():
    searched = table(
        [[[segment("s3://media-bucket/a", 0, [1.0, 0, 0, 0]), segment("s3://media-bucket/b", 0, [0, 1.0, 0.1, 0])]]]
    )

    assert found([searched], [[0, 0, 0, 1.0], [0, 1.0, 0, 0]], 1) == [("s3://media-bucket/b", 0)]


@pytest.mark.parametrize(
    ("narrowing", "expected"),
    [
        (Narrowing(), ["a", "b", "c", "d"]),
        (Narrowing(media_types=frozenset({MediaType.IMAGE})), ["d"]),
        (Narrowing(options=frozenset({"audio"})), ["b"]),
        (Narrowing(options=frozenset({"audio", "visual"})), ["a", "b", "c"]),
        (Narrowing(scope="asset"), ["c", "d"]),
        (Narrowing(options=frozenset({"visual"}), scope="clip"), ["a"]),
    ],
)
def test_segments_are_narrowed_by_media_type_option_and_scope(narrowing, expected):
    vector = [1.0, 0, 0, 0]
    films = [
        segment("s3://media-bucket/a", 0, vector),
        segment("s3://media-bucket/b", 0, vector, option="audio"),
        segment("s3://media-bucket/c", 0, vector, scope="asset"),
    ]
    pictures = [segment("s3://media-bucket/d", 0, vector, media_type="image", option=None, scope="asset")]
    searched = table([[films], [pictures]])

    assert [uri[-1] for uri, _ in found([searched], [vector], 9, narrowing)] == expected


def test_a_segment_or_an_object_can_be_left_out():
    vector = [1.0, 0, 0, 0]
    searched = table([[[segment(f"s3://media-bucket/{name}", n, vector) for name in "ab" for n in range(2)]]])

    assert found([searched], [vector], 9, but=("s3://media-bucket/a", 1)) == [
        ("s3://media-bucket/a", 0),
        ("s3://media-bucket/b", 0),
        ("s3://media-bucket/b", 1),
    ]
    assert found([searched], [vector], 9, but=("s3://media-bucket/a", None)) == [
        ("s3://media-bucket/b", 0),
        ("s3://media-bucket/b", 1),
    ]


def test_of_a_shared_table_only_the_segments_of_the_searched_libraries_are_compared():
    vector = [1.0, 0, 0, 0]
    uris = ["s3://media-bucket/films/1", "s3://media-bucket/clips/1", "s3://media-bucket/other/1"]
    files = [[[segment(uri, 0, vector) for uri in sorted(uris)]]]
    films, clips = library("films", "s3://media-bucket/films/"), library("clips", "s3://media-bucket/clips/")

    assert found([table(files, [films])], [vector]) == [("s3://media-bucket/films/1", 0)]
    candidates, compared = nearest([table(files, [films, clips])], unit(np.array([vector])), Narrowing(), 9)
    assert [one.media_uri for one in candidates] == ["s3://media-bucket/clips/1", "s3://media-bucket/films/1"]
    assert compared == {"films": 1, "clips": 1}


def test_a_file_that_holds_nothing_of_the_libraries_is_not_read():
    vector = [1.0, 0, 0, 0]
    searched = table(
        [
            [[segment("s3://media-bucket/clips/1", 0, vector)]],
            [[segment("s3://media-bucket/films/1", 0, vector)]],
        ],
        [library("films", "s3://media-bucket/films/")],
    )
    found([searched], [vector])

    assert {path for path, *_ in searched.files.read} == {"file-1"}


def test_a_vector_of_another_length_is_refused_by_its_file():
    searched = table([[[segment("s3://media-bucket/a", 0, [1.0, 0, 0])]]])

    with pytest.raises(VectorLengthError, match="file-0 has a vector that is not 4 numbers long"):
        found([searched], [[1.0, 0, 0, 0]])


def test_a_table_that_cannot_be_read_is_no_answer_and_named_by_library_and_region():
    right = table([[[segment("s3://media-bucket/a", 0, [1.0, 0, 0, 0])]]])
    wrong = table([[[segment("s3://media-bucket/a", 0, [1.0, 0, 0, 0])]]], [library("films_eu", region="eu-west-1")])
    wrong.files.error = OSError("connection refused")

    with pytest.raises(TableUnreachableError, match=r"films_eu in eu-west-1 can't be read.*connection refused"):
        found([right, wrong], [[1.0, 0, 0, 0]])
