from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from media_embeddings.costs import Rate
from media_embeddings.ledger import InvocationEntry, invocations_table
from media_embeddings.media import MediaType
from media_embeddings.planning import Status
from media_embeddings.spending import LEAST_LEARNT_FROM, paid_requests, read_spending, spending
from media_embeddings.tables import Tables

NOW = datetime(2026, 11, 20, 3, tzinfo=UTC)
ARN = "arn:aws:bedrock:us-east-1:123456789012:async-invoke/{}"


def attempt(request_id="r1", invocation="i1", *, at=NOW - timedelta(hours=1), took=60.0, **other):
    values = {
        "embedding_key": "k",
        "request_id": request_id,
        "attempt": 1,
        "invocation_arn": invocation and ARN.format(invocation),
        "media_uri": f"s3://films/{request_id}.mp4",
        "model": "marengo-2-7",
        "library": "films",
        "outcome": Status.EMBEDDED,
        "submitted_at": at,
        "ended_at": at + timedelta(seconds=took),
        "recorded_at": at + timedelta(minutes=5),
        "estimated_cost_usd": 2.0,
        "actual_cost_usd": 1.5,
        "media_type": "video",
        "media_sec": 30.0,
        "run_id": "run-1",
    }
    return InvocationEntry(**values | other)


def spent(*entries, run_id="run-1", library="films"):
    return spending(invocations_table(entries), "marengo-2-7", library, run_id, NOW)


def test_the_month_is_what_all_models_and_libraries_have_spent_since_its_first_day_in_utc():
    october = datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC)
    found = spent(
        attempt("r1"),
        attempt("r2", "i2", model="marengo-3-0", library="photographs", run_id="other"),
        attempt("r3", "i3", at=october, recorded_at=NOW),
        attempt("r4", "i4", at=datetime(2026, 11, 1, tzinfo=UTC)),
    )

    assert (found.month, found.month_usd) == ("2026-11", 4.5)
    assert found.run_usd == 4.5


def test_an_attempt_with_several_rows_was_paid_for_once_at_what_the_last_one_knows():
    in_progress = attempt(outcome=Status.DEFERRED, actual_cost_usd=None, ended_at=None)
    embedded = attempt(recorded_at=NOW, run_id="run-2")
    # Found by its output, whose folder does not tell the account.
    reused = attempt(
        invocation_arn="arn:aws:bedrock:us-east-1::async-invoke/i1",
        submitted_at=None,
        recorded_at=NOW + timedelta(hours=1),
    )

    assert spent(in_progress).month_usd == 2.0
    assert spent(in_progress, embedded, reused).month_usd == 1.5
    assert spent(in_progress, embedded, run_id="run-2").run_usd == 0.0


def test_a_failure_that_was_counted_at_its_estimate_costs_what_its_output_says_when_it_comes():
    failed = attempt(outcome=Status.FAILED, actual_cost_usd=2.0)
    assert spent(failed, attempt(recorded_at=NOW)).month_usd == 1.5
    late = attempt(recorded_at=NOW, outcome=Status.DEFERRED, actual_cost_usd=None)
    assert spent(attempt(), late).month_usd == 1.5


def test_two_invocations_of_one_request_were_paid_for_twice_and_a_refusal_was_not():
    refused = attempt("r9", None, outcome=Status.FAILED, actual_cost_usd=0.0)
    assert spent(attempt(), attempt(invocation="i2"), refused).month_usd == 3.0


def test_runs_of_one_name_in_two_libraries_are_told_apart():
    assert spent(attempt(library="other")).run_usd == 0.0


def test_how_long_invocations_take_is_learnt_from_enough_of_them():
    videos = [attempt(f"v{number}", f"v{number}", took=90.0) for number in range(LEAST_LEARNT_FROM)]
    images = [
        attempt(f"i{number}", f"i{number}", took=4.0, media_type="image", media_sec=None)
        for number in range(LEAST_LEARNT_FROM)
    ]
    found = spent(*videos, *images, *(attempt(f"t{number}", media_type="text") for number in range(3)))

    assert found.rates == {
        MediaType.VIDEO: Rate(0.0, 3.0, is_measured=True),
        MediaType.IMAGE: Rate(4.0, is_measured=True),
    }


def test_what_other_models_or_failures_took_teaches_nothing():
    others = [attempt(f"o{number}", model="marengo-3-0") for number in range(LEAST_LEARNT_FROM)]
    failures = [attempt(f"f{number}", outcome=Status.FAILED) for number in range(LEAST_LEARNT_FROM)]
    assert spent(*others, *failures).rates == {}


def test_an_absent_table_has_spent_nothing(tmp_path):
    found = read_spending(Tables(str(tmp_path), {}), "marengo-2-7", "films", "run-1", NOW)
    assert (found.month_usd, found.run_usd, found.rates) == (0.0, 0.0, {})


@pytest.mark.parametrize("days", [0, 45])
def test_the_table_is_read_as_far_back_as_it_matters(tmp_path, days):
    tables = Tables(str(tmp_path), {})
    at = NOW - timedelta(days=days, hours=1)
    tables.append_invocations(invocations_table([attempt(at=at)]), "c1")
    read: list[pa.Table] = []
    tables.copy_invocations(NOW - timedelta(days=30), read.append, ("recorded_at",))

    assert sum(part.num_rows for part in read) == (0 if days else 1)
    assert read_spending(tables, "marengo-2-7", "films", "run-1", NOW).month_usd == (0.0 if days else 1.5)


def test_a_request_with_an_invocation_is_paid_for(tmp_path):
    tables = Tables(str(tmp_path), {})
    rows = [attempt("r1"), attempt("r2", None)]
    tables.append_invocations(invocations_table(rows), "c1")
    uris = sorted(row.media_uri for row in rows)

    assert paid_requests(tables, uris, frozenset({"r1", "r2"})) == {"r1"}
