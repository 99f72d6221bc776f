from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from media_embeddings.listing import Listing
from media_embeddings.planner import PLANNED, Plan
from media_embeddings.planning import Status
from media_embeddings.reporting import BatchResult, ObjectNote, as_markdown, make_report

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
LISTING = Listing(uri="s3://b/l", objects=10, excluded=0, by_media_type={"video": 10}, filtered=False, listed_at=NOON)
PLAN = Plan(
    library="films",
    model="marengo-2-7",
    run_id="run-1",
    plan_id="p",
    counts={"video": {"unchanged": 6, PLANNED: 4}},
    reasons={},
    listed_at=NOON.isoformat(),
    gone=0,
    recovered=0,
    notices=(),
    batches=("video-001",),
    manifests=("s3://b/video-001/requests.jsonl",),
    problems=(),
    news=(),
    dry_run=False,
    force=False,
)


def result(**counts):
    return BatchResult("video-001", {"video": counts}, segments=9, submitted=4)


def report(plan=PLAN, results=(), listing=LISTING, max_failed_share=0.5):
    return make_report(listing, plan, results, max_failed_share=max_failed_share)


def test_the_books_of_a_good_run_balance_and_it_succeeds():
    made = report(results=[result(embedded=4)])

    assert made.balanced
    assert made.succeeded
    assert made.totals[Status.EMBEDDED] == 4
    assert "listed 10 + gone 0 = unchanged 6 + embedded 4" in as_markdown(made)


def test_one_failed_object_among_many_does_not_fail_the_run():
    made = report(results=[result(embedded=3, failed=1)])

    assert made.succeeded


def test_more_failures_than_the_library_allows_fail_the_run_and_say_that_the_rest_is_committed():
    made = report(results=[result(embedded=3, failed=1)], max_failed_share=0.2)

    assert not made.succeeded
    assert "what succeeded is committed" in made.problems[0]


def test_a_run_in_which_everything_failed_fails_whatever_share_is_allowed():
    assert not report(results=[result(failed=4)], max_failed_share=1.0).succeeded


def test_a_batch_that_was_not_merged_leaves_its_objects_deferred_and_fails_the_run():
    made = report(results=[BatchResult("video-001", None)])

    assert made.balanced
    assert made.totals[Status.DEFERRED] == 4
    assert "video-001" in made.problems[0]


def test_a_source_that_could_not_be_listed_fails_the_run():
    made = report(plan=replace(PLAN, problems=("s3://x/: access is denied",)), results=[result(embedded=4)])

    assert not made.succeeded
    assert "s3://x/" in as_markdown(made)


def test_an_empty_plan_is_a_success_and_says_that_nothing_was_submitted():
    made = report(plan=replace(PLAN, counts={"video": {"unchanged": 10}}, manifests=(), batches=()))

    assert made.succeeded
    assert "nothing was submitted" in as_markdown(made)


def test_a_failed_object_is_named_with_its_reason():
    note = ObjectNote("s3://films/a.mp4", "failed", "corrupt", "could not be decoded")
    made = report(results=[replace(result(embedded=3, failed=1), notes=(note,))])

    assert "- `s3://films/a.mp4` failed (corrupt): could not be decoded" in as_markdown(made)


def test_what_a_person_should_know_of_deletions_is_to_be_looked_at_and_fails_nothing():
    made = report(
        plan=replace(PLAN, notices=("3 of 4 objects are no longer in the sources",)), results=[result(embedded=4)]
    )

    assert made.succeeded
    assert "## What to look at\n\n- 3 of 4 objects are no longer in the sources" in as_markdown(made)


def test_books_that_do_not_balance_are_said_to_and_fail_the_run():
    made = report(listing=replace(LISTING, objects=11), results=[result(embedded=4)])

    assert not made.balanced
    assert not made.succeeded
    assert "do not balance" in as_markdown(made)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.booleans()), max_size=6),
    st.integers(0, 9),
    st.integers(0, 9),
)
def test_the_books_balance_whatever_became_of_the_batches(batches, unchanged, gone):
    results = [
        BatchResult(str(number), {"video": {"embedded": e, "failed": f, "deferred": d}} if merged else None)
        for number, (e, f, d, merged) in enumerate(batches)
    ]
    planned = sum(e + f + d for e, f, d, _ in batches)
    plan = replace(PLAN, counts={"video": {"unchanged": unchanged, PLANNED: planned, "retained": gone}}, gone=gone)
    made = report(plan, results, replace(LISTING, objects=unchanged + planned))

    assert made.balanced
    assert all(count >= 0 for count in made.totals.values())
