"""Everything that can be wrong with an object, a bucket or an answer: it is named, and the rest of the run lands."""

import numpy as np
import pytest

from media_embeddings.library import Library
from media_embeddings.listing import NothingListedError, SourceUnreachableError
from media_embeddings.planning import Status
from tests.integration.media_embeddings.conftest import end_all_jobs, film, picture, starts


@pytest.fixture
def filled(pipeline):
    pipeline.put("good.png", picture("red"))
    return pipeline


def only_bad(pipeline, report, key, status, reason_code, message):
    """Check that the good object landed, and that the other one stands in report and ledger with its reason."""
    assert report.balanced
    assert report.succeeded
    assert report.totals[Status.EMBEDDED] == 1
    assert report.totals[status] == 1
    assert "good.png" in pipeline.rows()
    assert key not in pipeline.rows()
    entry = pipeline.ledger()[key]
    assert (entry["status"], entry["reason_code"]) == (status, reason_code)
    assert message in entry["reason"]
    (note,) = [note for note in report.notes if note.media_uri == pipeline.uri(key)]
    assert message in note.reason


@pytest.fixture
def unchecked(filled):
    """Leave it to Bedrock to find out what the objects are."""
    filled.configure(read_headers=False)
    return filled


def test_a_corrupt_video_fails_with_the_models_message(unchecked):
    unchecked.put("broken.mp4", film()[:3000])

    only_bad(unchecked, unchecked.run(), "broken.mp4", "failed", "corrupt", "can't be decoded")


def test_a_corrupt_object_is_not_paid_for_again_until_it_changes(unchecked, simulator):
    unchecked.put("broken.mp4", film()[:3000])
    unchecked.run()
    count = starts(simulator)
    report = unchecked.run()
    assert starts(simulator) == count
    assert report.totals[Status.FAILED] == 1

    unchecked.put("broken.mp4", film())
    assert unchecked.run().totals[Status.EMBEDDED] == 1
    assert unchecked.ledger()["broken.mp4"]["status"] == "embedded"


def test_content_of_another_kind_than_its_suffix_says_fails(unchecked):
    unchecked.put("picture.mp4", picture("blue"))

    report = unchecked.run()
    assert report.totals[Status.FAILED] == 1
    assert unchecked.ledger()["picture.mp4"]["reason_code"] in {"unsupported_media", "corrupt"}


def test_an_object_without_bytes_is_rejected_before_anything_is_spent(filled, simulator):
    count = starts(simulator)
    filled.put("empty.mp4", b"")

    only_bad(filled, filled.run(), "empty.mp4", "rejected", "empty_object", "no bytes")
    assert starts(simulator) == count + 1


def test_an_unsupported_suffix_is_rejected(filled):
    filled.put("minutes.docx", b"PK")

    only_bad(filled, filled.run(), "minutes.docx", "rejected", "unsupported_media", "tells no media type")


def test_an_image_over_the_limit_is_rejected(filled):
    filled.put("large.png", bytes(5 * 1024**2 + 1))

    only_bad(filled, filled.run(), "large.png", "rejected", "too_large", "5242880 bytes")


def test_a_text_that_is_not_utf_8_fails_and_says_where(filled):
    filled.put("latin.txt", "Zürich".encode("latin-1"))

    only_bad(filled, filled.run(), "latin.txt", "failed", "corrupt", "not UTF-8 (byte 1)")


def test_a_text_that_has_more_tokens_than_it_was_taken_for_is_refused_and_not_cut(filled):
    filled.configure(characters_per_token=8)
    filled.put("long.txt", b"lorries " * 400)

    only_bad(filled, filled.run(), "long.txt", "failed", "too_long", "ValidationException")


@pytest.mark.parametrize("after", ["list_media", "plan"])
@pytest.mark.parametrize("key", ["gone.png", "gone.txt"])
def test_an_object_that_is_deleted_before_it_is_submitted_fails_alone(filled, simulator, after, key):
    filled.put(key, picture("blue") if key.endswith("png") else b"a blue boat")
    count = starts(simulator)
    filled.between[after] = lambda: filled.delete(key)

    only_bad(filled, filled.run(), key, "failed", "source_gone", "deleted")
    assert starts(simulator) == count + 1


def test_an_object_that_is_replaced_before_it_is_submitted_is_embedded_by_the_next_run(filled):
    filled.put("late.png", picture("blue"))
    filled.between["plan"] = lambda: filled.put("late.png", picture("green"))

    only_bad(filled, filled.run(), "late.png", "failed", "changed_during_run", "replaced before it was submitted")
    assert filled.run().totals[Status.EMBEDDED] == 1


def test_an_object_that_is_replaced_while_it_is_embedded_is_not_given_the_old_vectors(filled):
    filled.put("late.png", picture("blue"))
    filled.between["wait_for_async_invoke"] = lambda: filled.put("late.png", picture("green"))

    only_bad(filled, filled.run(), "late.png", "failed", "changed_during_run", "replaced while it was being embedded")
    assert filled.run().totals[Status.EMBEDDED] == 1


OUTPUTS = [
    ({"kind": "output_missing"}, "output_missing", "is Completed, but there is no s3://"),
    ({"kind": "output_truncated"}, "output_invalid", "cut off"),
    ({"kind": "output_malformed"}, "output_invalid", "not JSON"),
    ({"kind": "output_without_data"}, "output_invalid", "output.json"),
    ({"kind": "wrong_dimension", "dimension": 3}, "output_invalid", "has 3 numbers, the model's vectors have 1024"),
    ({"kind": "non_finite", "value": "NaN"}, "output_invalid", "output.json"),
    ({"kind": "non_finite", "value": "Infinity"}, "output_invalid", "output.json"),
    ({"kind": "failed", "message": "An internal error occurred."}, "service_error", "An internal error occurred."),
]


@pytest.mark.parametrize(("fault", "reason_code", "message"), OUTPUTS, ids=lambda value: str(value)[:40])
def test_an_output_that_is_not_what_the_model_promises_fails_its_object(filled, simulator, fault, reason_code, message):
    filled.put("bad.png", picture("blue"))
    simulator.faults({**fault, "source": "*bad.png"})

    only_bad(filled, filled.run(), "bad.png", "failed", reason_code, message)


def test_a_failure_that_may_pass_is_tried_again_by_the_next_run_under_a_new_attempt(filled, simulator):
    filled.put("bad.png", picture("blue"))
    simulator.faults({"kind": "output_truncated", "source": "*bad.png", "count": 1})
    filled.run()
    report = filled.run()

    assert report.totals[Status.EMBEDDED] == 1
    assert filled.ledger()["bad.png"]["attempts"] == 2


def test_an_object_that_fails_again_and_again_is_quarantined_and_costs_nothing_more(filled, simulator):
    filled.configure(max_attempts=2)
    filled.put("bad.png", picture("blue"))
    simulator.faults({"kind": "output_truncated", "source": "*bad.png"})
    filled.run(media_types=["image"])
    filled.run()
    count = starts(simulator)
    report = filled.run()

    assert starts(simulator) == count
    assert report.totals[Status.QUARANTINED] == 1
    assert filled.ledger()["bad.png"]["status"] == "quarantined"


def test_an_unknown_status_is_waited_for_until_the_deadline_and_then_named(filled, simulator):
    filled.configure(deadline_hours=3 / 3600)
    filled.put("odd.png", picture("blue"))
    simulator.faults({"kind": "unknown_status", "status": "Expired", "source": "*odd.png"})

    only_bad(filled, filled.run(), "odd.png", "failed", "unknown_status", "'Expired'")


def test_an_invocation_that_is_still_in_progress_at_the_deadline_is_gone_on_with_and_not_paid_for_again(
    filled, simulator
):
    filled.configure(deadline_hours=4 / 3600)
    filled.put("slow.png", picture("blue"))
    simulator.faults({"kind": "stuck", "source": "*slow.png"})
    first = filled.run()
    assert first.totals[Status.DEFERRED] == 1
    count = starts(simulator)

    end_all_jobs(simulator)
    second = filled.run()
    assert starts(simulator) == count
    assert second.reused == 1
    assert second.totals[Status.EMBEDDED] == 1


def test_a_failed_replacement_leaves_the_rows_of_the_earlier_content(filled, simulator):
    filled.run()
    before = filled.rows()["good.png"]
    filled.put("good.png", picture("blue"))
    filled.put("other.png", picture("green"))
    simulator.faults({"kind": "output_truncated", "source": "*good.png"})
    filled.run()

    assert filled.rows()["good.png"] == before
    assert np.isfinite(before[0]["embedding"]).all()


def test_when_everything_fails_the_run_fails(filled, simulator):
    simulator.faults({"kind": "output_truncated"})
    report = filled.run()

    assert not report.succeeded
    assert report.balanced


def test_an_absent_bucket_is_named_with_what_to_do(filled):
    filled.configure(sources=["s3://no-such-bucket-anywhere/library/"])

    with pytest.raises(NothingListedError, match=r"s3://no-such-bucket-anywhere/library/: the bucket does not exist"):
        filled.run()


def test_a_bucket_that_the_credentials_do_not_open_is_named_with_what_to_do(filled, stack):
    import boto3

    stranger = boto3.Session(aws_access_key_id="stranger", aws_secret_access_key="wrong")
    filled.storage = type(filled.storage).of_session(stranger)

    with pytest.raises(NothingListedError, match=r"access is denied|access key is unknown"):
        filled.run()


def test_an_s3_server_that_does_not_answer_is_named_and_may_be_tried_again(filled):
    import boto3
    from botocore.config import Config

    config = Config(retries={"total_max_attempts": 1}, connect_timeout=1)
    session = boto3.Session()
    filled.storage = type(filled.storage).of_session(
        session, session.client("s3", endpoint_url="http://127.0.0.1:9", config=config)
    )

    with pytest.raises(SourceUnreachableError, match=rf"s3://{filled.bucket}/library/ could not be listed"):
        filled.run()


def test_a_bucket_in_another_region_than_the_model_is_refused_by_bedrock_and_said(filled, simulator):
    simulator.settings(bucket_regions={filled.bucket: "eu-west-1"})
    report = filled.run()

    assert not report.succeeded
    assert "region" in report.notes[0].reason


def test_an_absent_output_bucket_fails_every_object_and_the_run(filled):
    settings = filled.library.model_dump()
    work = f"s3://no-such-work-{filled.bucket}/work"
    filled.library = Library(**settings | {"work": work})

    with pytest.raises(Exception, match=r"NoSuchBucket|does not exist"):
        filled.run()
