from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from media_embeddings.attempt_costs import AttemptCosts, Spent
from media_embeddings.batch_outputs import Outcome, PartOutcome
from media_embeddings.cost_assumptions import CostAssumptions
from media_embeddings.media import MediaObject, MediaType
from media_embeddings.models.prices import Price
from media_embeddings.outcomes import Invocation, InvocationStatus
from media_embeddings.parts import Part
from media_embeddings.planning import PlannedObject, Status

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
PRICE = Price(video_second=0.001, image=0.01, text_request=0.002)
COSTS = AttemptCosts(PRICE, CostAssumptions(), listed_at=NOON)
LATER, EARLIER = NOON + timedelta(minutes=1), NOON - timedelta(minutes=1)


def outcome(
    media_type=MediaType.VIDEO,
    *,
    start="started",
    ended="Completed",
    status=Status.EMBEDDED,
    duration_sec=90.0,
    submitted_at=LATER,
    estimated=0.5,
):
    media = MediaObject("films", "a", "e1", 1000, NOON, media_type)
    planned = PlannedObject(media, "k", "r1", 1, "{}", estimated_cost_usd=estimated)
    arn = None if start in ("refused", "unanswered") else "arn:x/i1"
    invocation = None if start is None else Invocation("r1", arn, start, submitted_at, None, None)
    how = None if ended is None else InvocationStatus("r1", "arn:x/i1", ended, None, submitted_at, LATER, "s3://b/o")
    part = PartOutcome(Part("r1"), invocation, how, status)
    return Outcome(planned, (part,), status, duration_sec=duration_sec)


def actual_usd(one, costs=COSTS):
    return costs.actual_usd(one, one.parts[0])


def test_the_parts_of_a_text_share_what_it_costs_and_those_that_were_there_cost_the_run_nothing():
    one = outcome(MediaType.TEXT, duration_sec=None, estimated=0.006)
    made = one.parts[0]
    there = replace(
        made, part=Part("r0", finished_output_uri="s3://b/o"), invocation=replace(made.invocation, outcome="reused")
    )
    text = replace(one, parts=(there, made, made))

    assert [COSTS.actual_usd(text, part) for part in text.parts] == pytest.approx([0.003] * 3)
    assert COSTS.spent(text).usd == pytest.approx(0.006)


def test_an_embedded_object_costs_what_its_output_covers():
    assert actual_usd(outcome()) == pytest.approx(0.09)
    assert actual_usd(outcome(MediaType.IMAGE, duration_sec=None)) == 0.01
    # How many requests and characters there were, the plan has counted.
    assert actual_usd(outcome(MediaType.TEXT, duration_sec=None, estimated=0.006)) == 0.006


def test_where_the_output_tells_nothing_the_estimate_stands():
    assert actual_usd(outcome(duration_sec=None)) == 0.5
    assert actual_usd(outcome(status=Status.FAILED, duration_sec=None)) == 0.5


@pytest.mark.parametrize(("share", "usd"), [(1.0, 0.5), (0.0, 0.0), (0.5, 0.25)])
def test_what_a_failed_invocation_costs_is_a_setting(share, usd):
    costs = AttemptCosts(PRICE, CostAssumptions(failed_billed_share=share), NOON)
    assert actual_usd(outcome(ended="Failed", status=Status.FAILED), costs) == usd


@pytest.mark.parametrize("start", [None, "refused", "unanswered"])
def test_what_bedrock_has_not_taken_costs_nothing(start):
    one = outcome(start=start, ended=None, status=Status.FAILED)
    assert (actual_usd(one), COSTS.spent(one)) == (0.0, Spent())


def test_what_is_in_progress_has_no_actual_cost_yet_and_is_spent_by_estimate():
    one = outcome(ended="InProgress", status=Status.DEFERRED, duration_sec=None)
    assert (actual_usd(one), COSTS.spent(one)) == (None, Spent(0.5, 0.5))


@pytest.mark.parametrize(
    ("start", "submitted_at", "is_spent"),
    [
        ("started", LATER, True),
        ("reused", None, False),
        ("adopted", EARLIER, False),
        ("adopted", LATER, True),
        ("adopted", None, False),
    ],
)
def test_a_run_has_spent_what_was_submitted_since_it_began(start, submitted_at, is_spent):
    one = outcome(start=start, submitted_at=submitted_at)
    assert actual_usd(one) == pytest.approx(0.09)
    assert COSTS.spent(one).usd == pytest.approx(0.09 if is_spent else 0.0)
