"""A library that crosses from Marengo 2.7 to 3.0: night after night, against a real S3 server and the Bedrock simulator."""

from __future__ import annotations

import json
from collections import Counter
from datetime import date

import numpy as np
import pytest

from media_embeddings.listing import list_media
from media_embeddings.model_lifecycle import ModelEndedError
from media_embeddings.planner import PlanOptions, make_plan
from media_embeddings.planning import Status
from media_embeddings.run_folder import RunFolder
from tests.integration.media_embeddings.conftest import film, picture, starts, vectors

OLD, NEW = "marengo-2-7", "marengo-3-0"
KEYS = {"film.mp4", "red.png", "blue.png", "red.txt"}


@pytest.fixture
def library(pipeline):
    pipeline.configure(next_model=NEW, deletions="on", max_deleted_share=0.5)
    pipeline.put("film.mp4", film())
    pipeline.put("red.png", picture("red"))
    pipeline.put("blue.png", picture("blue"))
    pipeline.put("red.txt", b"a red boat")
    return pipeline


def rows_of(library, model):
    return set(library.rows(model)) if model in embedded_models(library) else set()


def embedded_models(library):
    ledgers = {model: library.ledger(model) for model in (OLD, NEW)}
    return {model for model, rows in ledgers.items() if any(row["status"] == "embedded" for row in rows.values())}


def charges_of(library, simulator):
    """Return how often each object was charged for, by its key and model."""
    tokens = {}
    for uri in library.storage.list_uris(f"{library.library.work}/runs/"):
        if uri.endswith("/requests.jsonl"):
            plan_uri = f"{uri.partition('/batches/')[0]}/plan.json"
            model = library.storage.read_json(plan_uri)["model"]
            for line in library.storage.read_json_lines(uri):
                tokens[line["request_id"]] = (line["source_uri"].removeprefix(library.uri("")), model)
    return Counter(tokens[one["token"]] for one in simulator.charges() if one["token"] in tokens)


def test_two_nights_take_a_library_across_and_pay_once_for_each_object_and_model(library, simulator):
    first = library.run(limit=5)

    # The library's own model comes first, and the next one has what that leaves of the limit.
    assert (first.balanced, first.succeeded) == (True, True)
    of_old, of_new = first.models
    assert of_old.totals == of_old.totals | {Status.EMBEDDED: 4, Status.DEFERRED: 0}
    assert of_new.totals == of_new.totals | {Status.EMBEDDED: 1, Status.DEFERRED: 3}
    assert of_new.reasons["deferred"] == {"limit": 3}
    assert rows_of(library, OLD) == KEYS
    assert len(rows_of(library, NEW)) == 1
    assert (first.crossing.embedded, first.crossing.remaining, first.crossing.has_caught_up) == (1, 3, False)

    second = library.run()

    assert (second.balanced, second.succeeded) == (True, True)
    of_old, of_new = second.models
    assert of_old.totals == of_old.totals | {Status.UNCHANGED: 4, Status.EMBEDDED: 0}
    assert of_new.totals == of_new.totals | {Status.UNCHANGED: 1, Status.EMBEDDED: 3}
    assert second.crossing.has_caught_up
    assert rows_of(library, OLD) == rows_of(library, NEW) == KEYS
    assert {len(row["embedding"]) for rows in library.rows(OLD).values() for row in rows} == {1024}
    assert {len(row["embedding"]) for rows in library.rows(NEW).values() for row in rows} == {512}
    assert charges_of(library, simulator) == dict.fromkeys([(key, model) for key in KEYS for model in (OLD, NEW)], 1)

    count, versions = starts(simulator), [library.table(model).version() for model in (OLD, NEW)]
    third = library.run()
    assert third.succeeded
    assert starts(simulator) == count
    assert [library.table(model).version() for model in (OLD, NEW)] == versions


def test_a_changed_object_is_replaced_in_both_tables_and_one_that_is_gone_leaves_both(library, simulator):
    library.run()
    before = {model: library.rows(model) for model in (OLD, NEW)}
    library.put("red.png", picture("green"))
    library.delete("blue.png")
    count = starts(simulator)
    report = library.run()

    assert (report.balanced, report.succeeded) == (True, True)
    assert starts(simulator) == count + 2
    for books, model in zip(report.models, (OLD, NEW), strict=True):
        assert books.totals == books.totals | {Status.EMBEDDED: 1, Status.UNCHANGED: 2, Status.DELETED: 1}
        assert (books.listed, books.gone) == (3, 1)
        rows = library.rows(model)
        assert set(rows) == KEYS - {"blue.png"}
        assert not np.array_equal(vectors(rows["red.png"]), vectors(before[model]["red.png"]))
        assert rows["film.mp4"] == before[model]["film.mp4"]
        assert library.ledger(model)["blue.png"]["status"] == "deleted"


def test_what_the_share_keeps_from_being_deleted_is_not_deleted_for_the_next_models_sake(library):
    library.run()
    library.configure(max_deleted_share=0.2)
    # Among the few that the next model has, one in ten would be fewer than among all: its plan must not decide again.
    library.delete("red.png")
    report = library.run()

    for books, model in zip(report.models, (OLD, NEW), strict=True):
        assert books.balanced
        assert (books.totals[Status.DELETED], books.totals[Status.RETAINED]) == (0, 1)
        assert "red.png" in library.rows(model)
    assert len([one for one in report.notices if "no longer in the sources" in one]) == 1


def test_a_forced_run_pays_again_for_the_librarys_model_alone(library, simulator):
    library.run()
    count = starts(simulator)
    report = library.run(force=True)

    assert starts(simulator) == count + 4
    assert [books.totals[Status.EMBEDDED] for books in report.models] == [4, 0]


def test_a_run_with_the_next_model_as_its_parameter_embeds_with_it_alone_and_counts_for_the_crossing(
    library, simulator
):
    alone = library.run(model=NEW)

    assert alone.models == ()
    assert (alone.model, alone.crossing) == (NEW, None)
    assert rows_of(library, OLD) == set()
    count = starts(simulator)
    both = library.run()
    assert starts(simulator) == count + 4
    assert both.models[1].totals[Status.UNCHANGED] == 4
    assert both.crossing.has_caught_up


def test_what_fails_with_one_model_fails_in_its_books_alone_and_is_tried_again_with_that_one(library, simulator):
    library.configure(retries_in_run=1)
    simulator.faults({"kind": "output_truncated", "source": "*red.png", "count": 1})
    report = library.run()

    assert (report.balanced, report.succeeded) == (True, True)
    assert [books.retried for books in report.models] == [1, 0]
    assert [books.totals[Status.EMBEDDED] for books in report.models] == [4, 4]
    attempts = {model: library.ledger(model)["red.png"]["attempts"] for model in (OLD, NEW)}
    assert attempts == {OLD: 2, NEW: 1}


def test_both_plans_together_keep_to_the_most_batches(library):
    library.configure(batch_size=1, max_batches=8)
    for number in range(8):
        library.put(f"more/{number}.txt", f"boat number {number}".encode())
    report = library.run()

    assert [books.totals[Status.EMBEDDED] for books in report.models] == [12, 12]
    first, second = (books.batches for books in report.models)
    assert first <= 4
    assert first + second <= 8


def test_the_ledger_has_one_row_for_each_object_and_model_and_upkeep_finds_both_tables_right(library):
    from media_embeddings.upkeep.maintenance import Options, maintain
    from media_embeddings.upkeep.roots import table_roots

    library.run()
    (root,) = table_roots([library.library])
    kept = maintain(root, lambda _library: library.storage, "upkeep", Options())

    assert kept.succeeded, kept.as_markdown()
    assert kept.as_dict()["consistency"]["counts"] == {}
    assert kept.as_dict()["consistency"]["ledger_rows"] == 2 * len(KEYS)
    assert {f"embeddings/{OLD}", f"embeddings/{NEW}"} <= set(kept.as_dict()["after"])


def test_the_report_lies_beside_the_run_with_the_books_of_both_and_how_far_it_is(library):
    library.run(run_id="night", limit=5)
    folder = RunFolder(library.library.work, library.library.name, "night")
    value = json.loads(library.storage.read(folder.report_uri))

    assert set(value["models"]) == {OLD, NEW}
    assert value["totals"] == value["models"][OLD]["totals"]
    assert (value["crossing"]["taken"], value["crossing"]["remaining"]) == (4, 3)
    assert "## Crossing to marengo-3-0" in library.storage.read(folder.report_markdown_uri).decode()


def test_a_legacy_model_is_warned_of_in_plan_and_log_and_one_that_has_ended_plans_nothing(library, caplog):
    def planned(today, run_id):
        folder = RunFolder(library.library.work, library.library.name, run_id)
        listing = list_media(library.storage, library.library, folder.listing_uri)
        options = PlanOptions(dry_run=True)
        return make_plan(library.storage, library.library, run_id, listing, options, today=today)[0]

    library.configure(model_lifecycle="refuse")
    plan = planned(date(2026, 11, 23), "before")
    assert "ends it in us-east-1 on 2026-11-30, 7 days from now" in plan.notices[0]
    assert plan.notices[0] in caplog.text
    with pytest.raises(ModelEndedError, match="library films, key `model`"):
        planned(date(2026, 11, 30), "after")
    library.configure(model_lifecycle="warn")
    assert "31 days ago" in planned(date(2026, 12, 31), "extended").notices[0]


def test_after_the_end_of_its_model_a_library_that_says_so_goes_on_with_both(library, monkeypatch):
    monkeypatch.setattr("media_embeddings.model_lifecycle.utc_today", lambda: date(2027, 1, 15))
    report = library.run()

    assert report.succeeded
    assert rows_of(library, OLD) == rows_of(library, NEW) == KEYS
    assert len([one for one in report.notices if "model_lifecycle: warn" in one]) == 1
