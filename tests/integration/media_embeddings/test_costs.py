"""What a run says of its costs, and what a budget leaves out: against a real S3 server and the Bedrock simulator."""

from __future__ import annotations

import pytest

from media_embeddings.planning import Status
from media_embeddings.reasons import ReasonCode
from media_embeddings.tables import Tables
from tests.integration.media_embeddings.conftest import end_all_jobs, film, picture, starts

# A picture costs ten cents in these tests, with either model.
PRICES = {name: {"image": 0.1, "video_second": 0.01} for name in ("marengo-2-7", "marengo-3-0")}


@pytest.fixture
def priced(pipeline):
    pipeline.configure(prices=PRICES)
    return pipeline


def put_pictures(pipeline, *keys):
    for number, key in enumerate(keys):
        pipeline.put(f"{key}.png", picture("red", (64 + number, 64)))


def attempts(pipeline):
    tables = Tables(pipeline.library.tables, pipeline.storage.table_options)
    uris = sorted(pipeline.uri(key) for key in pipeline.ledger())
    columns = ("media_uri", "outcome", "media_type", "media_sec", "estimated_cost_usd", "actual_cost_usd", "attempt")
    return tables.read_invocations(uris, columns).to_pylist()


def statuses(pipeline):
    return {key: (row["status"], row["reason_code"]) for key, row in pipeline.ledger().items()}


def test_ledger_invocations_and_report_say_what_was_estimated_and_what_was_spent(priced):
    priced.put("film.mp4", film())
    put_pictures(priced, "a")
    report = priced.run()

    assert report.succeeded
    rows = {row["media_type"]: row for row in attempts(priced)}
    assert (rows["image"]["estimated_cost_usd"], rows["image"]["actual_cost_usd"]) == (0.1, 0.1)
    assert rows["video"]["media_sec"] == pytest.approx(10.0, abs=0.5)
    assert rows["video"]["actual_cost_usd"] == pytest.approx(0.1, abs=0.005)
    assert priced.ledger()["film.mp4"]["estimated_cost_usd"] == rows["video"]["estimated_cost_usd"] > 0
    assert report.estimates.by_media_type["video"].from_size == 0
    assert report.spent_usd == pytest.approx({"video": rows["video"]["actual_cost_usd"], "image": 0.1})
    assert report.unsettled_usd == 0
    text = priced.storage.read(f"{priced.library.work}/runs/films/run-1/report.md").decode()
    assert "## Cost" in text
    assert "by the setting prices; not confirmed by AWS" in text

    second = priced.run()
    assert second.estimates.by_media_type == {}
    assert second.estimates.month_usd == pytest.approx(sum(report.spent_usd.values()))


def test_a_dry_run_says_what_it_would_cost_and_spends_nothing(priced, simulator):
    put_pictures(priced, "a", "b", "c")
    priced.configure(max_cost_usd_per_run=0.2)
    count = starts(simulator)
    report = priced.run(dry_run=True)

    estimate = report.estimates.by_media_type["image"]
    assert (estimate.objects, estimate.usd, estimate.left_out) == (2, pytest.approx(0.2), 1)
    assert report.reasons["deferred"] == {"dry_run": 2, "budget": 1}
    assert starts(simulator) == count
    assert priced.ledger() == {}


def test_night_after_night_a_budget_takes_what_it_pays_for_until_nothing_waits(priced, simulator):
    put_pictures(priced, "a", "b", "c", "d", "e")
    priced.configure(max_cost_usd_per_run=0.25)
    nights = []
    for _ in range(3):
        before = len(simulator.charges())
        report = priced.run()
        assert report.succeeded, report.problems
        assert report.balanced
        nights.append((len(simulator.charges()) - before, report.totals[Status.DEFERRED]))

    assert nights == [(2, 3), (2, 1), (1, 0)]
    assert {row["status"] for row in priced.ledger().values()} == {"embedded"}
    assert {row["attempts"] for row in priced.ledger().values()} == {1}


def test_what_is_left_out_stands_in_the_ledger_and_is_before_what_comes_later(priced):
    put_pictures(priced, "a", "b")
    priced.configure(max_cost_usd_per_run=0.1)
    first = priced.run()
    # Of two, the larger file was taken; what is left is a known object now, though it is not the largest of the next night.
    [left] = [key for key, (status, _) in statuses(priced).items() if status == "deferred"]
    assert statuses(priced)[left] == ("deferred", "budget")
    assert first.notes == ()
    [notice] = [one for one in first.notices if "the budget leaves 1 objects" in one]
    assert "max_cost_usd_per_run" in notice

    priced.put("large.png", picture("blue", (800, 800)))
    priced.run()
    assert statuses(priced)[left] == ("embedded", None)
    assert statuses(priced)["large.png"] == ("deferred", "budget")


def test_what_alone_costs_more_than_the_budget_is_named_and_holds_up_nothing(priced, simulator):
    priced.put("film.mp4", film())
    put_pictures(priced, "a")
    priced.configure(prices={"marengo-2-7": {"image": 0.1, "video_second": 10.0}}, max_cost_usd_per_run=0.1)
    report = priced.run()

    assert report.succeeded
    assert report.totals == report.totals | {Status.EMBEDDED: 1, Status.DEFERRED: 1}
    assert any(priced.uri("film.mp4") in one and "budget" in one for one in report.notices)


def test_the_budget_of_a_month_is_that_of_all_models_and_libraries_of_the_tables(priced, simulator):
    put_pictures(priced, "a", "b")
    priced.configure(max_cost_usd_per_month=0.3)
    assert priced.run().totals[Status.EMBEDDED] == 2
    other = priced.run(model="marengo-3-0")

    assert (other.totals[Status.EMBEDDED], other.totals[Status.DEFERRED]) == (1, 1)
    priced.configure(name="photographs")
    before = len(simulator.charges())
    assert priced.run(model="marengo-3-0").batches == 0
    assert len(simulator.charges()) == before


def test_further_attempts_of_a_run_are_under_its_budget_too(priced, simulator):
    put_pictures(priced, "bad", "good")
    priced.configure(max_cost_usd_per_run=0.25, retries_in_run=1)
    simulator.faults({"kind": "output_truncated", "source": "*bad.png", "count": 1})
    before = len(simulator.charges())
    report = priced.run()

    # Two attempts for 0.20; a third one would be 0.30.
    assert len(simulator.charges()) == before + 2
    assert report.balanced
    assert (report.retried, report.totals[Status.FAILED]) == (0, 1)
    assert any("1 objects that failed are not tried again in this run" in one for one in report.notices)
    assert priced.run().totals[Status.EMBEDDED] == 1
    assert statuses(priced)["bad.png"] == ("embedded", None)


def test_further_attempts_that_fit_are_made(priced, simulator):
    put_pictures(priced, "bad")
    priced.configure(max_cost_usd_per_run=0.2, retries_in_run=1)
    simulator.faults({"kind": "output_truncated", "source": "*bad.png", "count": 1})
    report = priced.run()

    assert (report.retried, report.totals[Status.EMBEDDED]) == (1, 1)
    assert report.spent_usd == pytest.approx({"image": 0.2})


def test_what_is_in_progress_is_gone_on_with_though_the_budget_is_used_up(priced, simulator):
    put_pictures(priced, "slow")
    priced.configure(deadline_hours=4 / 3600, max_cost_usd_per_month=0.1)
    simulator.faults({"kind": "stuck", "source": "*slow.png"})
    first = priced.run()
    assert first.totals[Status.DEFERRED] == 1
    assert first.unsettled_usd == pytest.approx(0.1)
    count = starts(simulator)

    put_pictures(priced, "new")
    second = priced.run()
    assert second.adopted == 1
    assert second.reasons["deferred"] == {"budget": 1, "deadline_exceeded": 1}
    assert second.spent_usd == {"image": 0.0}
    end_all_jobs(simulator)
    third = priced.run()
    assert third.totals == third.totals | {Status.EMBEDDED: 1, Status.DEFERRED: 1}
    assert third.estimates.month_usd == pytest.approx(0.1)
    assert starts(simulator) == count


def test_a_run_that_is_planned_again_has_what_it_has_spent_already_taken_off_its_budget(priced, simulator):
    put_pictures(priced, "a", "b", "c")
    priced.configure(max_cost_usd_per_run=0.25)
    priced.run(run_id="cleared")
    before = len(simulator.charges())
    again = priced.run(run_id="cleared")

    assert len(simulator.charges()) == before
    assert again.reasons["deferred"] == {"budget": 1}
    assert priced.run().totals[Status.EMBEDDED] == 1


def test_a_forced_run_goes_on_the_next_night_where_its_budget_ended(priced, simulator):
    put_pictures(priced, "a", "b", "c")
    priced.run()
    priced.configure(max_cost_usd_per_run=0.2)
    assert priced.run(force=True).totals[Status.EMBEDDED] == 2
    report = priced.run()

    assert report.totals == report.totals | {Status.EMBEDDED: 1, Status.UNCHANGED: 2}
    assert {row["attempts"] for row in priced.ledger().values()} == {2}
    assert priced.run().totals[Status.UNCHANGED] == 3


def test_a_failed_invocation_is_spent_as_the_library_says(priced, simulator):
    put_pictures(priced, "bad")
    priced.configure(cost_assumptions={"failed_billed_share": 0.5})
    simulator.faults({"kind": "failed", "source": "*bad.png", "message": "It did not work"})
    report = priced.run()

    assert report.reasons["failed"] == {ReasonCode.MODEL_FAILED: 1}
    assert [row["actual_cost_usd"] for row in attempts(priced)] == [0.05]
    assert report.spent_usd == pytest.approx({"image": 0.05})
