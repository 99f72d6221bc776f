import pytest

from media_embeddings.outcomes import Invocation, InvocationStatus, failure_reason, verdict
from media_embeddings.planning import Status
from media_embeddings.reasons import ReasonCode

ARN = "arn:aws:bedrock:us-east-1:123456789012:async-invoke/abcdefghijkl"


def started(**other):
    value = {
        "request_id": "r1",
        "invocation_arn": ARN,
        "outcome": "started",
        "submitted_at": "2026-11-01T12:00:00+00:00",
        "error_code": None,
        "error_message": None,
    }
    return Invocation.from_dict(value | other)


def ended(status, message=None):
    return InvocationStatus.from_dict(
        {
            "request_id": "r1",
            "invocation_arn": ARN,
            "status": status,
            "failure_message": message,
            "submitted_at": "2026-11-01T12:00:00+00:00",
            "ended_at": None,
            "output_uri": "s3://b/work/outputs/r1/abcdefghijkl",
        }
    )


def test_a_completed_invocation_has_an_output_to_read():
    assert verdict(started(), ended("Completed")) is None


@pytest.mark.parametrize(("invocation", "status"), [(None, None), (started(), None), (started(), ended("InProgress"))])
def test_what_is_not_finished_is_left_to_the_next_run_not_failed(invocation, status):
    found = verdict(invocation, status)

    assert found is not None
    assert found.status is Status.DEFERRED
    assert "next run goes on" in found.reason.message


def test_an_unknown_status_at_the_deadline_fails_the_object_and_names_it():
    found = verdict(started(), ended("Expired"))

    assert found is not None
    assert (found.status, found.reason.code) == (Status.FAILED, ReasonCode.UNKNOWN_STATUS)
    assert "'Expired'" in found.reason.message
    assert ARN in found.reason.message


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        ("ValidationException", "startSec is out of range", ReasonCode.INVALID_REQUEST),
        ("ValidationException", "inputText exceeds the limit of 77 tokens", ReasonCode.TOO_LONG),
        ("AccessDeniedException", "no", ReasonCode.ACCESS_DENIED),
        ("SourceNotFound", "no such object", ReasonCode.SOURCE_GONE),
        ("SourceChanged", "other ETag", ReasonCode.CHANGED_DURING_RUN),
        ("SomethingNew", "?", ReasonCode.SERVICE_ERROR),
    ],
)
def test_a_refusal_keeps_its_code_and_message(code, message, reason):
    found = verdict(
        started(invocation_arn=None, outcome="refused", submitted_at=None, error_code=code, error_message=message),
        None,
    )

    assert found is not None
    assert (found.status, found.reason.code) == (Status.FAILED, reason)
    assert found.reason.message == f"{code}: {message}"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("The video could not be decoded: invalid data found", ReasonCode.CORRUPT),
        ("Unsupported codec av1", ReasonCode.UNSUPPORTED_MEDIA),
        ("An internal error occurred, please try again", ReasonCode.SERVICE_ERROR),
        ("Access denied to s3://b/k", ReasonCode.ACCESS_DENIED),
        ("The object is too large", ReasonCode.TOO_LARGE),
        ("Nobody knows", ReasonCode.MODEL_FAILED),
        (None, ReasonCode.MODEL_FAILED),
    ],
)
def test_bedrocks_words_tell_the_reason_and_are_kept(message, code):
    reason = failure_reason(message)

    assert reason.code is code
    assert message is None or reason.message == message
