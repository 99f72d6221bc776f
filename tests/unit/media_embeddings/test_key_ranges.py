"""Listing by ranges of keys, against a server in memory: whatever the keys, all are listed, each once, in order."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from datetime import UTC, datetime
from hashlib import sha256

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from media_embeddings.key_ranges import list_ranges, split_key
from media_embeddings.s3_pages import OBJECTS_SCHEMA, Page

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Bucket:
    """Lists keys in pages, in the order of their UTF-8 bytes or in another one."""

    def __init__(self, keys, *, page=3, order=str.encode, between=lambda bucket: None):
        self.page, self.order, self.between = page, order, between
        self.keys = sorted(keys, key=order)
        self.calls = 0
        self._lock = threading.Lock()

    def fetch(self, *, after=None, token=None):
        with self._lock:
            self.calls += 1
            start = token if token is not None else after
            begin = 0 if start is None else bisect_right(self.keys, self.order(start), key=self.order)
            found = self.keys[begin : begin + self.page]
            is_last = begin + self.page >= len(self.keys)
            self.between(self)
        # As a server does, it lets others go on while it answers.
        time.sleep(0)
        columns = [found, ["e"] * len(found), [1] * len(found), [NOON] * len(found)]
        return Page(pa.table(columns, schema=OBJECTS_SCHEMA), None if is_last else found[-1])


def listed_ranges(bucket, prefix="", workers=4):
    parts = {}
    order = list_ranges(bucket.fetch, lambda part, rows: parts.setdefault(part, []).append(rows), prefix, workers)
    return [[key for rows in parts[part] for key in rows["key"].to_pylist()] for part in order]


def listed(bucket, prefix="", workers=4):
    return [key for keys in listed_ranges(bucket, prefix, workers) for key in keys]


ANY_KEY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
FLAT_KEY = st.builds("IMG_{:06d}.jpg".format, st.integers(0, 999_999))
FOLDER_KEY = st.builds(
    "{}/{:04d}/{}".format,
    st.sampled_from(["2026", "2025", "ältere", "a-b", "a"]),
    st.integers(0, 50),
    st.text("ab-./é"),
)
HASH_KEY = st.text("0123456789abcdef", min_size=6, max_size=6)


@settings(max_examples=250, deadline=None)
@given(
    keys=st.one_of(*[st.sets(kind, max_size=150) for kind in (ANY_KEY, FLAT_KEY, FOLDER_KEY, HASH_KEY)]),
    page=st.integers(1, 20),
    workers=st.integers(1, 6),
)
@example(keys={"\U0010ffff", "\U0010ffffa", "\ud7ff", "\ue000", "\ufffe", "\x01", "\x7f"}, page=1, workers=4)
def test_all_keys_are_listed_each_once_and_in_order_whatever_they_are(keys, page, workers):
    assert listed(Bucket(keys, page=page), workers=workers) == sorted(keys)


@settings(max_examples=150, deadline=None)
@given(keys=st.sets(st.text("ab-./0", min_size=1, max_size=8), max_size=120), page=st.integers(1, 5))
def test_a_server_that_orders_keys_in_another_way_is_listed_without_loss(keys, page):
    by_folder = Bucket(keys, page=page, order=lambda key: key.split("/"))

    assert sorted(listed(by_folder)) == sorted(keys)


@settings(max_examples=100, deadline=None)
@given(
    keys=st.sets(FLAT_KEY, min_size=30, max_size=150),
    changes=st.lists(st.tuples(st.booleans(), FLAT_KEY), max_size=60),
    page=st.integers(1, 6),
)
def test_keys_that_stay_are_listed_once_while_others_come_and_go(keys, changes, page):
    pending = list(changes)
    moved = {key for _, key in changes}

    def change(bucket):
        if pending:
            is_new, key = pending.pop()
            there = set(bucket.keys) | {key} if is_new else set(bucket.keys) - {key}
            bucket.keys = sorted(there)

    found = listed(Bucket(keys, page=page, between=change))

    assert [key for key in found if key not in moved] == sorted(keys - moved)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("objects", [0, 1, 1000, 1001, 3000])
def test_a_small_library_costs_one_call_a_page(objects):
    bucket = Bucket([f"library/{number:07d}.jpg" for number in range(objects)], page=1000)

    assert len(listed(bucket, "library/")) == objects
    assert bucket.calls == max(1, -(-objects // 1000))


@pytest.mark.parametrize(
    "name",
    [
        lambda number: f"library/IMG_{number:07d}.jpg",
        lambda number: f"library/the-first-season-of-something/{number // 1000:05d}/take {number:08d}.mp4",
        lambda number: f"library/{sha256(str(number).encode()).hexdigest()}",
        lambda number: f"library/{chr(0x4E00 + number % 2000)}/{number}",
    ],
    ids=["flat", "folders", "hashes", "Unicode"],
)
def test_a_large_library_is_listed_in_many_ranges_by_few_more_calls_than_it_has_pages(name):
    keys = {name(number) for number in range(60_000)}
    bucket = Bucket(keys, page=200)

    found = listed_ranges(bucket, "library/", workers=8)

    assert [key for part in found for key in part] == sorted(keys)
    assert len(found) > 4
    assert bucket.calls < 1.5 * len(keys) / 200


def test_a_range_is_split_where_keys_may_differ():
    assert split_key("IMG_0001", "IMG_0009", None, None, 0).key == "IMG`"
    assert split_key("IMG_0001", "IMG_0009", "IMG`", None, 0).key == "IMG_01"
    assert split_key("IMG_0001", "IMG_0009", None, 4, 4).key == "IMG_5"
    assert split_key("IMG_0001", "IMG_0009", "IMG_5", 4, 4).key == "IMG_2"


def test_what_one_page_reaches_across_is_not_split():
    assert split_key("a", "z", None, None, 0) is None
    assert split_key("IMG_0001", "IMG_9001", None, None, 0) is not None
    assert split_key("一/1", "七/1", None, None, 0) is not None
    assert split_key("IMG_0001", "IMG_9001", None, None, 4) is None


def test_an_error_of_one_call_ends_the_listing_with_it():
    bucket = Bucket([f"{number:06d}" for number in range(5000)], page=10)

    def failing(**arguments):
        if bucket.calls > 40:
            raise ConnectionError("no answer")
        return bucket.fetch(**arguments)

    with pytest.raises(ConnectionError, match="no answer"):
        list_ranges(failing, lambda part, rows: None, "", 4)
