"""Images and texts through InvokeModel, beside videos by jobs: the same merge, ledger, recovery and report."""

import numpy as np
import pytest

from bedrock_async_invoke.manifest import invoke_id
from media_embeddings.planning import Status
from media_embeddings.upkeep.objects import delete_objects
from tests.integration.media_embeddings.conftest import film, invokes, picture, starts, vectors


@pytest.fixture
def filled(pipeline):
    pipeline.configure(processing="auto")
    pipeline.put("a film.mp4", film())
    pipeline.put("what? red #1.png", picture("red"))
    pipeline.put("blue.png", picture("blue"))
    pipeline.put("notes/red.txt", "a red boat, größer".encode())
    return pipeline


def test_what_needs_no_job_has_none_and_ends_in_the_same_rows(filled, simulator):
    before = starts(simulator), invokes(simulator)
    report = filled.run()

    assert report.succeeded
    assert report.balanced
    assert report.totals == report.totals | {Status.EMBEDDED: 4}
    assert (report.submitted, report.lost_answers, report.batches) == (4, 0, 3)
    assert (starts(simulator) - before[0], invokes(simulator) - before[1]) == (1, 3)
    (red,) = filled.rows()["what? red #1.png"]
    assert red["invocation_arn"] == f"arn:aws:bedrock:us-east-1::invoke-model/{invoke_id(red['request_id'])}"
    assert filled.ledger()["what? red #1.png"]["invocation_arn"] == red["invocation_arn"]


def test_both_ways_give_the_same_vectors(filled):
    filled.run()
    sync = filled.rows()
    filled.configure(processing="async")
    filled.run(force=True)
    jobs = filled.rows()

    for key in sync:
        assert np.array_equal(vectors(sync[key]), vectors(jobs[key]))


@pytest.mark.parametrize("model", ["marengo-2-7", "marengo-3-0"])
def test_images_may_be_sent_with_their_requests(filled, model):
    filled.configure(model=model)
    filled.run()
    read_by_bedrock = filled.rows()
    filled.configure(media_source="base64")
    report = filled.run(force=True)

    assert report.totals == report.totals | {Status.EMBEDDED: 4}
    assert np.array_equal(vectors(filled.rows()["blue.png"]), vectors(read_by_bedrock["blue.png"]))


def test_a_second_run_asks_for_nothing(filled, simulator):
    filled.run()
    before = starts(simulator), invokes(simulator)
    report = filled.run()

    assert report.totals == report.totals | {Status.UNCHANGED: 4}
    assert (starts(simulator), invokes(simulator)) == before


def test_lost_tables_are_made_again_from_the_answers(filled, simulator):
    filled.run()
    rows, before = filled.rows(), (starts(simulator), invokes(simulator))
    delete_objects(filled.storage, list(filled.storage.list_uris(f"{filled.library.tables}/embeddings/")))
    delete_objects(filled.storage, list(filled.storage.list_uris(f"{filled.library.tables}/media/")))
    report = filled.run()

    assert report.totals == report.totals | {Status.EMBEDDED: 4}
    assert (report.reused, report.submitted) == (4, 0)
    assert (starts(simulator), invokes(simulator)) == before
    assert {key: row[0]["invocation_arn"].split(":")[5].partition("/")[0] for key, row in filled.rows().items()} == {
        "a film.mp4": "async-invoke",
        "what? red #1.png": "invoke-model",
        "blue.png": "invoke-model",
        "notes/red.txt": "invoke-model",
    }
    assert set(rows) == set(filled.rows())


def test_one_that_is_refused_fails_alone_and_with_bedrocks_words(filled, simulator):
    simulator.faults(
        {
            "kind": "error",
            "operation": "InvokeModel",
            "code": "ValidationException",
            "message": "The image could not be decoded.",
            "source": "*blue.png",
        }
    )
    report = filled.run()

    assert report.succeeded
    assert report.totals == report.totals | {Status.EMBEDDED: 3, Status.FAILED: 1}
    entry = filled.ledger()["blue.png"]
    assert (entry["status"], entry["reason_code"]) == ("failed", "corrupt")
    assert "The image could not be decoded." in entry["reason"]


def test_what_a_model_fails_over_is_tried_again_in_the_run_in_the_same_way(filled, simulator):
    filled.configure(retries_in_run=1, media_source="base64")
    simulator.faults(
        {"kind": "error", "operation": "InvokeModel", "code": "ModelErrorException", "source": "*", "count": 5}
    )
    filled.put("alone/only.png", picture("green"))
    before = starts(simulator)
    report = filled.run(prefix=filled.uri("alone/"))

    assert report.totals == report.totals | {Status.EMBEDDED: 1}
    assert report.retried == 1
    assert starts(simulator) == before
    assert filled.ledger()["alone/only.png"]["attempts"] == 2


def test_an_object_that_is_replaced_after_the_listing_is_not_sent(filled, simulator):
    filled.between["plan"] = lambda: filled.put("blue.png", picture("green"))
    before = invokes(simulator)
    filled.run()

    assert invokes(simulator) == before + 2
    assert filled.ledger()["blue.png"]["reason_code"] == "changed_during_run"


def test_an_object_that_is_replaced_while_its_answer_comes_is_not_merged(filled):
    filled.configure(media_types={"image": [".png"]})
    filled.between["invoke_model"] = lambda: filled.put("blue.png", picture("green"))
    filled.run()

    assert filled.ledger()["blue.png"]["reason_code"] == "changed_during_run"
    assert "blue.png" not in filled.rows()


def test_a_lost_answer_stands_in_the_report(filled, simulator):
    simulator.faults({"kind": "lost_response", "operation": "InvokeModel", "source": "*blue.png", "count": 1})
    report = filled.run()

    assert report.totals == report.totals | {Status.EMBEDDED: 4}
    assert report.lost_answers == 1


def test_each_part_of_a_long_text_is_sent_once_whatever_becomes_of_the_others(pipeline, simulator):
    pipeline.configure(processing="auto", retries_in_run=1, media_types={"text": [".txt"]})
    sentences = [f"Sentence number {number} tells of a red boat on a green lake." for number in range(20)]
    pipeline.put("long.txt", " ".join(sentences).encode())
    # One part fails each time that it is tried in the first attempt, and the others don't.
    simulator.faults(
        {"kind": "error", "operation": "InvokeModel", "code": "ModelErrorException", "source": "", "count": 5}
    )
    pipeline.configure(max_concurrent_invokes=1)
    before = invokes(simulator)
    report = pipeline.run()

    rows = pipeline.rows()["long.txt"]
    assert len(rows) > 3
    assert report.totals == report.totals | {Status.EMBEDDED: 1}
    assert invokes(simulator) == before + len(rows)
    assert {row["invocation_arn"].split(":")[5].partition("/")[0] for row in rows} == {"invoke-model"}
    assert rows[0]["start_char"] == 0
    assert pipeline.run().totals[Status.UNCHANGED] == 1
    assert invokes(simulator) == before + len(rows)
