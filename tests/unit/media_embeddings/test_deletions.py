from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media_embeddings.deletions import LISTING_HOLDS, DeletionPolicy, Deletions, decide_deletions
from media_embeddings.library import DeletionMode

SOURCE = "s3://films/"
LISTING = pa.schema([("media_uri", pa.string()), ("taken", pa.bool_())])
LEDGER = pa.schema(
    [
        ("media_uri", pa.string()),
        ("media_type", pa.string()),
        ("status", pa.string()),
        ("run_id", pa.string()),
        ("updated_at", pa.timestamp("us", tz="UTC")),
    ]
)
LISTED = datetime(2026, 11, 2, 2, tzinfo=UTC)
BEFORE, AFTER = LISTED - timedelta(hours=24), LISTED + timedelta(minutes=1)


def listing(*taken: str, left_out: tuple[str, ...] = ()) -> pa.Table:
    rows = [(uri, True) for uri in taken] + [(uri, False) for uri in left_out]
    return pa.Table.from_pylist([dict(zip(LISTING.names, row, strict=True)) for row in rows], schema=LISTING)


def ledger(*uris: str, status: str = "embedded", run_id: str = "run-1", updated_at: datetime = BEFORE) -> pa.Table:
    rows = [
        {"media_uri": uri, "media_type": "video", "status": status, "run_id": run_id, "updated_at": updated_at}
        for uri in uris
    ]
    return pa.Table.from_pylist(rows, schema=LEDGER)


def policy(mode: str = "on", share: float = 1.0) -> DeletionPolicy:
    return DeletionPolicy(
        mode=DeletionMode(mode),
        max_deleted_share=share,
        run_id="run-2",
        listed_at=LISTED,
        now=LISTED + timedelta(minutes=5),
    )


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


def test_many_failures_do_not_make_the_loss_of_all_rows_look_like_a_small_one():
    failed = ledger(*[f"s3://films/{number:02}" for number in range(90)], status="failed")
    embedded = ledger("s3://films/x", "s3://films/y")
    found = decide_deletions(
        listing(*failed["media_uri"].to_pylist()), pa.concat_tables([failed, embedded]), [SOURCE], policy(share=0.1)
    )
    assert (found.uris, found.retained) == ((), {"video": 2})
    assert "2 of 2 embedded objects" in found.notices[0]


def test_what_another_run_has_found_out_since_the_listing_is_left_to_the_next_run():
    known = pa.concat_tables([ledger("s3://films/a"), ledger("s3://films/b", run_id="run-3", updated_at=AFTER)])
    found = decide_deletions(listing(), known, [SOURCE], policy())
    assert (found.uris, found.deleted, found.retained) == (("s3://films/a",), {"video": 1}, {})


def test_a_listing_of_long_ago_deletes_nothing_and_that_is_said():
    late = replace(policy(), now=LISTED + LISTING_HOLDS + timedelta(seconds=1))
    found = decide_deletions(listing(), ledger("s3://films/a"), [SOURCE], late)
    assert (found.uris, found.retained) == ((), {"video": 1})
    assert "too long ago" in found.notices[0]
    assert "s3://films/a" in found.notices[0]


def test_a_dry_run_deletes_nothing_and_says_what_it_would_delete():
    found = decide_deletions(listing(), ledger("s3://films/a"), [SOURCE], replace(policy(), dry_run=True))
    assert (found.uris, found.deleted, found.retained) == ((), {}, {"video": 1})
    assert "would be deleted (s3://films/a)" in found.notices[0]


@settings(max_examples=150, deadline=None)
@given(
    known=st.lists(
        st.tuples(
            st.sampled_from(["embedded", "failed", "deferred", "deleted"]),
            st.sampled_from(["run-1", "run-2"]),
            st.sampled_from([BEFORE, AFTER]),
            st.sampled_from(["taken", "left out", "absent"]),
            st.sampled_from(["s3://films/", "s3://other/"]),
        ),
        max_size=12,
    ),
    mode=st.sampled_from(list(DeletionMode)),
    share=st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]),
    dry_run=st.booleans(),
    hours=st.sampled_from([0, 23, 25]),
)
def test_every_object_that_is_not_listed_is_in_exactly_one_place(known, mode, share, dry_run, hours):
    rows, there = [], {}
    for number, (status, run_id, updated_at, place, prefix) in enumerate(known):
        uri = f"{prefix}{number}"
        there[uri] = place
        rows.append(
            {"media_uri": uri, "media_type": "video", "status": status, "run_id": run_id, "updated_at": updated_at}
        )
    found = decide_deletions(
        listing(
            *[uri for uri in there if there[uri] == "taken"],
            left_out=tuple(uri for uri in there if there[uri] == "left out"),
        ),
        pa.Table.from_pylist(rows, schema=LEDGER),
        [SOURCE],
        replace(policy(mode, share), dry_run=dry_run, now=LISTED + timedelta(hours=hours)),
    )

    def is_known(row):
        own = row["status"] == "deleted" and row["run_id"] == "run-2"
        return row["media_uri"].startswith(SOURCE) and (
            own or (row["status"] != "deleted" and row["updated_at"] <= LISTED)
        )

    below = [row for row in rows if is_known(row)]
    gone = [row for row in below if there[row["media_uri"]] != "taken"]
    assert sum(found.deleted.values()) + sum(found.retained.values()) == len(gone)
    now_gone = [row for row in gone if row["media_uri"] in found.uris]
    assert len(now_gone) == len(found.uris)
    assert all(there[row["media_uri"]] == "absent" and row["status"] != "deleted" for row in now_gone)
    if found.uris:
        assert (mode, dry_run, hours < 24) == (DeletionMode.ON, False, True)
        assert sum(found.deleted.values()) <= Fraction(share) * len(below)
        embedded = [row for row in below if row["status"] == "embedded"]
        lost = [row for row in now_gone if row["status"] == "embedded"]
        done = [row for row in below if row["status"] == "deleted"]
        assert len(lost) + len([row for row in done if row in gone]) <= Fraction(share) * (len(embedded) + len(done))
    elif mode is not DeletionMode.OFF:
        undecided = [row for row in gone if there[row["media_uri"]] == "absent" and row["status"] != "deleted"]
        assert len(found.notices) == bool(undecided)
