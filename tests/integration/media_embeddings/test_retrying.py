"""Further attempts within a run, and those that a person asks for."""

from __future__ import annotations

from collections import Counter

import pytest

from media_embeddings.planning import Status
from media_embeddings.tables import Tables
from tests.integration.media_embeddings.conftest import picture, starts


@pytest.fixture
def retrying(pipeline):
    pipeline.configure(retries_in_run=1)
    pipeline.put("good.png", picture("red"))
    return pipeline


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"kind": "output_truncated"}, "output_invalid"),
        ({"kind": "output_missing"}, "output_missing"),
        ({"kind": "failed", "message": "An internal error, try again"}, "service_error"),
        ({"kind": "failed", "message": "It did not work"}, "model_failed"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["kind"],
)
def test_what_fails_once_is_embedded_in_the_same_run_by_a_second_attempt_with_a_recorded_reason(
    retrying, simulator, fault, code
):
    retrying.put("bad.png", picture("blue"))
    simulator.faults({**fault, "source": "*bad.png", "count": 1})

    report = retrying.run()

    assert (report.succeeded, report.balanced, report.retried) == (True, True, 1)
    assert report.totals[Status.EMBEDDED] == 2
    assert report.totals[Status.FAILED] == 0
    assert report.reasons == {}
    assert report.notes == ()
    assert retrying.ledger()["bad.png"]["attempts"] == 2
    tables = Tables(retrying.library.tables, retrying.storage.table_options)
    rows = tables.read_invocations([retrying.uri("bad.png")], ("attempt", "outcome", "reason_code")).to_pylist()
    found = sorted((row["attempt"], row["outcome"], row["reason_code"]) for row in rows)
    assert found == [(1, "failed", code), (2, "embedded", None)]


def test_what_fails_again_is_failed_once_in_the_books(retrying, simulator):
    retrying.put("bad.png", picture("blue"))
    simulator.faults({"kind": "output_truncated", "source": "*bad.png"})

    report = retrying.run()

    assert report.balanced
    assert (report.totals[Status.EMBEDDED], report.totals[Status.FAILED]) == (1, 1)
    assert report.reasons == {"failed": {"output_invalid": 1}}
    assert len(report.notes) == 1
    assert retrying.ledger()["bad.png"]["attempts"] == 2


def test_the_limit_of_attempts_holds_within_a_run(retrying, simulator):
    retrying.configure(retries_in_run=3, max_attempts=3)
    retrying.put("bad.png", picture("blue"))
    simulator.faults({"kind": "output_truncated", "source": "*bad.png"})
    count = starts(simulator)

    retrying.run()
    assert starts(simulator) == count + 1 + 3
    assert retrying.run().totals[Status.QUARANTINED] == 1
    assert starts(simulator) == count + 1 + 3


def test_what_needs_a_person_or_another_listing_is_not_tried_again(retrying, simulator):
    retrying.put("bad.png", picture("blue"))
    simulator.faults(
        {"kind": "error", "operation": "StartAsyncInvoke", "code": "AccessDeniedException", "source": "*bad.png"}
    )
    report = retrying.run()
    assert report.retried == 0
    assert report.reasons == {"failed": {"access_denied": 1}}


def test_a_text_is_tried_again_with_its_words(retrying, simulator):
    retrying.put("bad.txt", b"A slow red train.")
    simulator.faults({"kind": "output_truncated", "count": 1, "source": ""})
    report = retrying.run()
    assert (report.retried, report.totals[Status.EMBEDDED]) == (1, 2)


def test_no_request_is_charged_twice_by_further_attempts(retrying, simulator):
    for number in range(4):
        retrying.put(f"{number}.png", picture("blue", (64 + number, 64)))
    simulator.faults({"kind": "output_truncated", "rate": 0.5, "seed": 3})
    before = len(simulator.charges())
    report = retrying.run()
    charges = Counter(charge["token"] for charge in simulator.charges()[before:])
    assert set(charges.values()) == {1}
    assert len(charges) == 5 + report.retried


@pytest.fixture
def quarantined(pipeline, simulator):
    pipeline.configure(max_attempts=1)
    pipeline.put("bad.png", picture("blue"))
    pipeline.put("worse.png", picture("red"))
    simulator.faults({"kind": "output_truncated"})
    pipeline.run()
    assert pipeline.run().totals[Status.QUARANTINED] == 2
    simulator.clear_faults()
    return pipeline


def test_a_quarantined_object_is_released_by_its_uri_and_only_that_one(quarantined):
    report = quarantined.run(release=(quarantined.uri("bad.png"),))
    assert (report.totals[Status.EMBEDDED], report.totals[Status.QUARANTINED]) == (1, 1)
    assert quarantined.ledger()["bad.png"]["attempts"] == 2


def test_quarantined_objects_are_released_by_a_glob(quarantined):
    assert quarantined.run(release=("s3://*.png",)).totals[Status.EMBEDDED] == 2


def test_what_failed_for_good_is_tried_again_on_demand(quarantined):
    assert quarantined.run(retry_failed=True).totals[Status.EMBEDDED] == 2


def test_changed_content_leaves_the_quarantine_by_itself(quarantined):
    quarantined.put("bad.png", picture("green"))
    report = quarantined.run()
    assert (report.totals[Status.EMBEDDED], report.totals[Status.QUARANTINED]) == (1, 1)
