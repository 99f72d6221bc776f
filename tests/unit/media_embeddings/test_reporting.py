import json
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from media_embeddings.costs import Estimates, TypeEstimate
from media_embeddings.listing import Listing
from media_embeddings.planner import PLANNED, Plan
from media_embeddings.planning import Status
from media_embeddings.reporting import BatchResult, ObjectNote, Refusal, as_markdown, joined, make_report

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


def report(plan=PLAN, results=(), listing=LISTING, max_failed_share=0.5, **other):
    return make_report(listing, plan, results, max_failed_share=max_failed_share, **other)


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


ESTIMATES = Estimates(
    {"video": TypeEstimate(objects=4, minutes=10.0, usd=3.0, hours=0.5)},
    "2026-11-23",
    "a list",
    price_confirmed=False,
    month="2026-11",
    month_usd=10.0,
)


def test_the_report_shows_what_was_estimated_and_spent_and_the_month_with_date_and_source_of_the_prices():
    spent = replace(result(embedded=4), spent_usd={"video": 2.5}, unsettled_usd=0.5)
    text = as_markdown(report(plan=replace(PLAN, estimates=ESTIMATES), results=[spent]))

    assert "| video | 3.00 | 2.50 |" in text
    assert "prices of 2026-11-23: a list; not confirmed by AWS" in text
    assert "0.5000 USD of that are estimates" in text
    assert "spent in 2026-11 (UTC) with this run: 12.50 USD" in text


def test_what_was_not_approved_is_deferred_for_that_and_fails_nothing():
    made = report(results=[BatchResult("video-001", None)], refusal=Refusal(3.0, "ada"))

    assert (made.succeeded, made.balanced) == (True, True)
    assert made.totals[Status.DEFERRED] == 4
    assert made.reasons == {"deferred": {"not_approved": 4}}
    assert "ada rejected the estimated cost of 3.00 USD: nothing was submitted" in made.notices[0]
    assert "4 objects wait for approval of their cost" in as_markdown(made)
    assert "nobody approved the estimated cost of 3.00 USD in time" in Refusal(3.0).notice


def test_what_the_run_had_merged_before_it_was_asked_again_counts_as_what_it_is():
    results = [result(embedded=3), BatchResult("video-002", None)]
    made = report(results=results, refusal=Refusal(3.0, "ada"))

    assert (made.totals[Status.EMBEDDED], made.totals[Status.DEFERRED]) == (3, 1)
    assert made.reasons == {"deferred": {"not_approved": 1}}
    assert made.succeeded


def test_what_the_budget_has_left_out_is_no_problem_and_may_be_everything():
    plan = replace(
        PLAN,
        counts={"video": {"unchanged": 6, "deferred": 4}},
        reasons={"deferred": {"budget": 4}},
        manifests=(),
        batches=(),
        notices=("the budget leaves 4 objects",),
    )
    made = report(plan=plan, notices=("1 objects that failed are not tried again",))

    assert made.succeeded
    assert made.notices == ("the budget leaves 4 objects", "1 objects that failed are not tried again")
    assert "The budget left all 4 objects to later runs" in as_markdown(made)


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


NEXT = replace(PLAN, model="marengo-3-0", plan_id="q", counts={"video": {"unchanged": 3, PLANNED: 2, "deferred": 5}})


def crossed(plan=PLAN, next_plan=NEXT, next_results=None, *, is_whole=True):
    results = [result(embedded=2)] if next_results is None else next_results
    return joined(report(plan, [result(embedded=4)]), report(next_plan, results), is_whole=is_whole)


def test_a_run_with_two_models_has_balanced_books_of_each_and_those_of_the_librarys_model_on_top():
    made = crossed()
    value = made.as_dict()

    assert made.balanced
    assert made.succeeded
    assert (value["model"], value["totals"]["embedded"], value["totals"]["unchanged"]) == ("marengo-2-7", 4, 6)
    assert {name: books["totals"]["embedded"] for name, books in value["models"].items()} == {
        "marengo-2-7": 4,
        "marengo-3-0": 2,
    }
    assert all(sum(books["totals"].values()) == books["listed"] + books["gone"] for books in value["models"].values())
    assert value["crossing"]["embedded"] == 5
    assert value["crossing"]["remaining"] == 5
    assert value["crossing"]["has_caught_up"] is False
    json.dumps(value)


def test_a_run_with_one_model_has_its_books_by_name_as_well_and_no_crossing():
    value = report(results=[result(embedded=4)]).as_dict()

    assert set(value["models"]) == {"marengo-2-7"}
    assert value["models"]["marengo-2-7"]["totals"] == value["totals"]
    assert value["crossing"] is None


def test_people_read_a_section_for_each_model_and_how_far_the_crossing_is():
    text = as_markdown(crossed())

    assert text.startswith("# Run report: library films, models marengo-2-7 and marengo-3-0")
    assert "## Crossing to marengo-3-0" in text
    assert "has 5 of the 10 objects that it takes (50%)." in text
    for model, books in (("marengo-2-7", "unchanged 6 + embedded 4"), ("marengo-3-0", "unchanged 3 + embedded 2")):
        section = text.partition(f"## {model}\n")[2]
        assert f"listed 10 + gone 0 = {books}" in section


def test_a_failure_of_the_next_model_fails_the_run_under_its_name_and_leaves_the_other_books_as_they_are():
    made = crossed(next_results=[BatchResult("video-001", {"video": {"failed": 2}})])

    assert not made.succeeded
    (problem,) = made.problems
    assert problem.startswith("marengo-3-0: none of 2 attempted objects was embedded")
    value = made.as_dict()["models"]
    assert (value["marengo-2-7"]["succeeded"], value["marengo-3-0"]["succeeded"]) == (True, False)


def test_what_is_said_of_the_listing_is_said_once():
    same = {"notices": ("the inventory may be limited",), "problems": ("s3://x/: access is denied",)}
    made = crossed(replace(PLAN, **same), replace(NEXT, **same))

    assert made.notices == ("the inventory may be limited",)
    assert made.problems == ("s3://x/: access is denied",)


def test_books_of_the_next_model_that_do_not_balance_fail_the_run():
    made = crossed(next_plan=replace(NEXT, gone=1))

    assert not made.balanced
    assert not made.succeeded
