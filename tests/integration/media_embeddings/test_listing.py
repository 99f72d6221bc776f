"""Listing against a real S3 server, whose order of keys is not quite that of S3."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from media_embeddings.key_ranges import list_ranges
from media_embeddings.library import DeletionMode
from media_embeddings.listing import LISTING_SCHEMA, list_media
from media_embeddings.s3_pages import OBJECTS_SCHEMA, PageReader
from media_embeddings.storage import etag_of

FOLDERS = [f"{year}/{number % 7:02d}/take {number:03d} (ä&b)+50%.mp4" for year in (2025, 2026) for number in range(60)]
FLAT = [f"IMG_{number:04d}.jpg" for number in range(100)]
AWKWARD = ["2025-notes.txt", "2025.txt", "a/x.jpg", "a-b.jpg", "a/<&>'.jpg", "日本/語.png", "emoji 🎬.mov", "no-suffix"]


@pytest.fixture
def filled(pipeline):
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: pipeline.put(key, b"x"), [*FOLDERS, *FLAT, *AWKWARD]))
    return pipeline


@pytest.mark.parametrize("page_size", [3, 7, 1000])
def test_ranges_of_keys_hold_what_one_serial_listing_holds(filled, page_size):
    parts: dict[int, list[pa.Table]] = {}
    reader = PageReader(filled.storage.client, filled.bucket, "library/", page_size=page_size)

    order = list_ranges(reader.read, lambda part, rows: parts.setdefault(part, []).append(rows), "library/", 8)

    found = pa.concat_tables([OBJECTS_SCHEMA.empty_table(), *[rows for part in order for rows in parts[part]]])
    pages = filled.storage.client.get_paginator("list_objects_v2").paginate(Bucket=filled.bucket, Prefix="library/")
    serial = [
        {
            "key": entry["Key"],
            "etag": etag_of(entry["ETag"]),
            "size_bytes": entry["Size"],
            "last_modified": entry["LastModified"],
        }
        for page in pages
        for entry in page["Contents"]
    ]
    assert len(serial) == len(FOLDERS) + len(FLAT) + len(AWKWARD)
    assert sorted(found.to_pylist(), key=lambda row: row["key"]) == sorted(serial, key=lambda row: row["key"])


def test_a_listing_has_the_rows_that_the_library_takes_and_says_what_it_leaves_out(filled, tmp_path):
    filled.configure(include=["*.jpg", "/20*"], exclude=["IMG_0*7.jpg"], deletions=DeletionMode.OFF)

    listing = list_media(filled.storage, filled.library, f"{filled.library.work}/listing.parquet")

    filled.storage.download(listing.uri, tmp_path / "rows.parquet")
    rows = pq.read_table(tmp_path / "rows.parquet")
    left_out = {f"IMG_0{number:02d}7.jpg" for number in range(10)} | {"日本/語.png", "emoji 🎬.mov", "no-suffix"}
    expected = {*FOLDERS, *FLAT, *AWKWARD} - left_out
    assert rows.schema.equals(LISTING_SCHEMA)
    assert set(rows["media_uri"].to_pylist()) == {filled.uri(key) for key in expected}
    assert set(rows["key"].to_pylist()) == {f"library/{key}" for key in expected}
    assert (listing.objects, listing.excluded) == (len(expected), len(left_out))
    assert listing.by_media_type == {
        "image": len([key for key in expected if key.endswith(".jpg")]),
        "text": 2,
        "video": len(FOLDERS),
    }


def test_where_deletions_are_looked_for_what_is_left_out_has_a_row_too(filled, tmp_path):
    filled.configure(include=["*.jpg"])

    listing = list_media(filled.storage, filled.library, f"{filled.library.work}/listing.parquet")

    filled.storage.download(listing.uri, tmp_path / "rows.parquet")
    rows = pq.read_table(tmp_path / "rows.parquet")
    taken = dict(zip(rows["key"].to_pylist(), rows["taken"].to_pylist(), strict=True))
    assert len(taken) == len(FOLDERS) + len(FLAT) + len(AWKWARD)
    assert {key for key in taken if taken[key]} == {key for key in taken if key.endswith(".jpg")}
