from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media_embeddings.deletions import DeletionPolicy, Deletions, decide_deletions
from media_embeddings.library import DeletionMode

SOURCE = "s3://films/"
LISTING = pa.schema([("media_uri", pa.string()), ("taken", pa.bool_())])
LEDGER = pa.schema(
    [("media_uri", pa.string()), ("media_type", pa.string()), ("status", pa.string()), ("run_id", pa.string())]
)


def listing(*taken: str, left_out: tuple[str, ...] = ()) -> pa.Table:
    rows = [(uri, True) for uri in taken] + [(uri, False) for uri in left_out]
    return pa.Table.from_pylist([dict(zip(LISTING.names, row, strict=True)) for row in rows], schema=LISTING)


def ledger(*uris: str, status: str = "embedded", run_id: str = "run-1") -> pa.Table:
    rows = [{"media_uri": uri, "media_type": "video", "status": status, "run_id": run_id} for uri in uris]
    return pa.Table.from_pylist(rows, schema=LEDGER)


def policy(mode: str = "on", share: float = 1.0) -> DeletionPolicy:
    return DeletionPolicy(DeletionMode(mode), share, "run-2")


def test_what_is_absent_from_a_complete_listing_is_deleted():
    found = decide_deletions(listing("s3://films/a"), ledger("s3://films/a", "s3://films/b"), [SOURCE], policy())
    assert found == Deletions(("s3://films/b",), {"video": 1}, {}, ())


def test_what_is_there_but_left_out_by_globs_or_suffixes_is_retained():
    found = decide_deletions(
        listing("s3://films/a", left_out=("s3://films/b",)), ledger("s3://films/a", "s3://films/b"), [SOURCE], policy()
    )
    assert found == Deletions((), {}, {"video": 1}, ())


def test_nothing_is_decided_outside_of_what_was_listed_completely():
    known = ledger("s3://films/a", "s3://other/b")
    assert decide_deletions(listing(), known, [], policy()) == Deletions()
    assert decide_deletions(listing("s3://films/a"), known, [SOURCE], policy()) == Deletions()


def test_if_too_large_a_share_would_go_nothing_does_and_it_is_said():
    known = ledger(*[f"s3://films/{number}" for number in range(10)])
    found = decide_deletions(listing(*known["media_uri"].to_pylist()[2:]), known, [SOURCE], policy(share=0.1))
    assert (found.uris, found.deleted, found.retained) == ((), {}, {"video": 2})
    assert "2 of 10 objects are no longer in the sources" in found.notices[0]
    assert "s3://films/0, s3://films/1" in found.notices[0]
    assert decide_deletions(
        listing(*known["media_uri"].to_pylist()[1:]), known, [SOURCE], policy(share=0.1)
    ).deleted == {"video": 1}


@pytest.mark.parametrize(("mode", "notices"), [("off", 0), ("report", 1)])
def test_unless_deletions_are_on_rows_stay(mode, notices):
    found = decide_deletions(listing(), ledger("s3://films/a"), [SOURCE], policy(mode))
    assert (found.uris, found.deleted, found.retained) == ((), {}, {"video": 1})
    assert len(found.notices) == notices


def test_what_was_deleted_once_is_not_counted_again_but_by_the_run_that_did_it():
    by_another = ledger("s3://films/a", status="deleted", run_id="run-1")
    by_this_one = ledger("s3://films/b", status="deleted", run_id="run-2")
    found = decide_deletions(listing(), pa.concat_tables([by_another, by_this_one]), [SOURCE], policy(share=0.0))
    assert found == Deletions((), {"video": 1}, {}, ())


@settings(max_examples=60, deadline=None)
@given(
    known=st.lists(
        st.tuples(st.sampled_from(["embedded", "failed", "deferred", "deleted"]), st.sampled_from(["run-1", "run-2"])),
        max_size=12,
    ),
    there=st.lists(st.sampled_from(["taken", "left out", "absent"]), min_size=12, max_size=12),
    mode=st.sampled_from(list(DeletionMode)),
    share=st.floats(0, 1),
)
def test_every_object_that_is_not_listed_is_in_exactly_one_place(known, there, mode, share):
    uris = [f"s3://films/{number}" for number in range(len(known))]
    place = dict(zip(uris, there, strict=False))
    rows = [
        {"media_uri": uri, "media_type": "video", "status": status, "run_id": run_id}
        for uri, (status, run_id) in zip(uris, known, strict=True)
    ]
    found = decide_deletions(
        listing(
            *[uri for uri in uris if place[uri] == "taken"],
            left_out=tuple(uri for uri in uris if place[uri] == "left out"),
        ),
        pa.Table.from_pylist(rows, schema=LEDGER),
        [SOURCE],
        policy(mode, share),
    )
    gone = [
        row
        for row in rows
        if place[row["media_uri"]] != "taken" and (row["status"] != "deleted" or row["run_id"] == "run-2")
    ]
    assert sum(found.deleted.values()) + sum(found.retained.values()) == len(gone)
    assert all(place[uri] == "absent" for uri in found.uris)
    assert mode is DeletionMode.ON or not found.uris
