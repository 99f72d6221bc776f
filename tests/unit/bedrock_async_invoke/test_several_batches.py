"""Several batches at one submitter, while S3 fails or a batch leaves: what happens to one must not be the others' loss."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
from botocore.exceptions import ClientError

from bedrock_async_invoke import attempts, submitter
from bedrock_async_invoke.batch import Batch
from bedrock_async_invoke.submitter import ManifestSubmission, Submission, Submitter
from tests.unit.bedrock_async_invoke.fake_aws import MODEL, TIMED_OUT, LostAnswer, request
from tests.unit.bedrock_async_invoke.test_several_submitters import INTENTS, SUBMITTER, manifest, run


@pytest.fixture
def submission(clients, clock):
    def submission(name: str, *requests, **changes) -> Submission:
        if requests:
            clients.put_lines(manifest(name), *requests)
        given = {"intents_uri": INTENTS, "submitter_uri": SUBMITTER, "adopt_since": clock.now - 86_400}
        return Submission(MODEL, manifest(name), **{**given, "poll_interval": 5.0, **changes})

    return submission


def failing_once(monkeypatch, clients, method: str, part: str) -> None:
    """Let the first call of a method of S3 fail whose URI has this part."""
    original, failed = getattr(clients, method), []

    def call(uri: str, *arguments, **members):
        if part in uri and not failed:
            failed.append(uri)
            raise OSError("S3: connection reset")
        return original(uri, *arguments, **members)

    monkeypatch.setattr(clients, method, call)


@pytest.mark.parametrize("calls_at_once", [1, 8])
def test_an_error_before_start_fails_one_task_and_every_request_is_started_all_the_same(
    clients, bedrock, clock, submission, monkeypatch, calls_at_once
):
    monkeypatch.setattr(submitter, "CALLS_AT_ONCE", calls_at_once)
    of_one = submission("one", request(1, priority=1), max_in_flight=2)
    of_other = submission(
        "other", *[request(number, priority=100 - number) for number in (10, 11, 12)], max_in_flight=2
    )
    shared = Submitter(clients, of_one)
    one, other = ManifestSubmission(clients, of_one, shared), ManifestSubmission(clients, of_other, shared)
    failing_once(monkeypatch, clients, "write_if", "intents/request-10")

    with pytest.raises(OSError, match="connection reset"):
        one.step()
    run(clock, ManifestSubmission(clients, of_one, shared), other)

    assert sorted(bedrock.accepted) == ["request-1", "request-10", "request-11", "request-12"]
    assert bedrock.most_in_progress <= 2


def test_an_error_while_a_new_holder_reads_the_record_loses_no_batch(clients, bedrock, clock, submission, monkeypatch):
    of_one, of_other = submission("one", request(1)), submission("other", request(10))
    shared = Submitter(clients, of_one)
    one, other = ManifestSubmission(clients, of_one, shared), ManifestSubmission(clients, of_other, shared)
    failing_once(monkeypatch, clients, "read_object", "invocations.jsonl")

    with pytest.raises(OSError, match="connection reset"):
        one.step()
    run(clock, ManifestSubmission(clients, of_one, shared), other)

    assert sorted(bedrock.accepted) == ["request-1", "request-10"]


def test_a_request_that_comes_back_within_the_lists_lag_is_not_started_again(
    clients, bedrock, clock, submission, monkeypatch
):
    """Start is answered, then S3 refuses to keep the answer: the task fails, and its ticket brings the request back."""
    bedrock.forgets_tokens, bedrock.list_delay, bedrock.job_seconds = True, 20.0, 100.0
    of_one = submission("one", request(1), max_in_flight=6)
    of_other = submission("other", request(9, priority=9), request(20, priority=-5), max_in_flight=1)
    shared = Submitter(clients, of_one)
    one, other = ManifestSubmission(clients, of_one, shared), ManifestSubmission(clients, of_other, shared)
    write_if = clients.write_if

    def refusing(uri: str, content: bytes, *, etag: str | None) -> str | None:
        if "request-1" in bedrock.accepted:
            raise OSError("S3: 503")
        return write_if(uri, content, etag=etag)

    monkeypatch.setattr(clients, "write_if", refusing)
    with pytest.raises(OSError, match="503"):
        run(clock, one)
    monkeypatch.setattr(clients, "write_if", write_if)
    for _ in range(60):
        other.step()
        clock.sleep(1)

    assert bedrock.accepted.count("request-1") == 1


def test_a_call_without_an_answer_takes_room_also_when_nobody_asks_for_it_any_more(clients, bedrock, clock, submission):
    bedrock.list_delay, bedrock.job_seconds = 20.0, 100.0
    of_one = submission("one", request(1, priority=9), max_in_flight=1)
    of_other = submission("other", request(10), request(11), max_in_flight=1)
    shared = Submitter(clients, of_one)
    one, other = ManifestSubmission(clients, of_one, shared), ManifestSubmission(clients, of_other, shared)
    bedrock.start_faults.append(LostAnswer(TIMED_OUT))

    one.step()
    one.withdraw()
    for _ in range(90):
        other.step()
        clock.sleep(1)

    assert bedrock.most_in_progress == 1


def test_a_ticket_whose_manifest_is_refused_fails_nobody_elses_task(clients, bedrock, clock, submission, monkeypatch):
    of_one, foreign = submission("one", request(1)), submission("foreign", request(50))
    shared = Submitter(clients, of_one)
    assert shared.tickets is not None
    shared.tickets.put(manifest("foreign"), foreign.as_dict())
    read = clients.read

    def refusing(uri: str) -> bytes | None:
        if uri == manifest("foreign"):
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetObject")
        return read(uri)

    monkeypatch.setattr(clients, "read", refusing)
    run(clock, ManifestSubmission(clients, of_one, shared))

    assert bedrock.accepted == ["request-1"]


def test_when_the_last_task_of_a_process_leaves_the_next_one_finds_nothing_of_others(
    clients, bedrock, clock, submission
):
    bedrock.job_seconds = 30.0
    of_one = submission("one", request(1, priority=9), max_in_flight=1)
    of_next = submission("next", request(2, priority=-1), max_in_flight=1)
    foreign = submission("foreign", request(50), max_in_flight=1)
    shared = Submitter(clients, of_one)
    assert shared.tickets is not None
    shared.tickets.put(manifest("foreign"), foreign.as_dict())
    one = ManifestSubmission(clients, of_one, shared)
    one.step()
    one.close()
    shared.tickets.take_away(manifest("foreign"))
    run(clock, ManifestSubmission(clients, of_next, shared))

    assert "request-2" in bedrock.accepted


@pytest.mark.parametrize(("list_lag", "starts_after"), [(10.0, 14.0), (10.0, 29.0), (30.0, 29.0)])
def test_who_does_not_share_the_lease_waits_until_a_prepared_start_must_have_been_made(
    clients, bedrock, clock, submission, list_lag, starts_after
):
    bedrock.forgets_tokens, bedrock.list_delay = True, list_lag - 0.5
    of_one = submission("one", request(1), submitter_uri=None, list_lag_seconds=list_lag)
    of_other = submission("other", request(1), list_lag_seconds=list_lag)
    batch, began = Batch(clients, of_one), clock.now
    starter = attempts.Starter(lambda: clients, "one", None, list_lag)
    prepared: Future = Future()
    prepared.set_result(starter.prepare(batch, batch.requests["request-1"], fence=0, looked_at=clock.now))
    other, is_done = ManifestSubmission(clients, of_other, Submitter(clients, of_other)), False

    while not is_done or clock.now - began <= starts_after:
        if clock.now - began == starts_after:
            starter.attempt(batch, batch.requests["request-1"], fence=0, looked_at=clock.now, preparation=prepared)
        is_done = is_done or other.step() is None
        clock.sleep(0.25)
        assert clock.now - began < 300

    assert bedrock.accepted == ["request-1"]
