"""What is done of a request before there is room for it in the window."""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future

import pytest

from bedrock_async_invoke import submitter as submitter_module
from bedrock_async_invoke.attempts import Held, Known, Prepared, Starter
from bedrock_async_invoke.intents import Intent
from bedrock_async_invoke.submitter import ManifestSubmission, Submission, Submitter
from tests.unit.bedrock_async_invoke.fake_aws import MANIFEST, MODEL, request

INTENTS, SUBMITTER = "s3://tables/intents", "s3://tables/submitter"
SOURCE = "s3://media/a.mp4"


@pytest.fixture
def batch(clients, clock):
    clients.etags[SOURCE] = "first"
    clients.put_requests(request(1, source_uri=SOURCE, source_etag="first"))
    submission = Submission(MODEL, MANIFEST, intents_uri=INTENTS, adopt_since=clock.now - 86_400)
    return submitter_module.Batch(clients, submission)


@pytest.fixture
def starter(clients):
    return Starter(lambda: clients, "me", None, 30.0)


def prepared(starter, batch, *, fence: int = 1) -> Future[Prepared | Known | Held]:
    future: Future[Prepared | Known | Held] = Future()
    future.set_running_or_notify_cancel()
    [one] = batch.requests.values()
    future.set_result(starter.prepare(batch, one, fence=fence, looked_at=0.0))
    return future


def attempt(starter, batch, preparation, *, fence: int = 1):
    [one] = batch.requests.values()
    return starter.attempt(batch, one, fence=fence, looked_at=0.0, preparation=preparation).ending


def test_what_is_prepared_has_its_intent_and_is_not_started(clients, bedrock, starter, batch):
    prepared(starter, batch)
    intent = Intent.of(clients.objects[f"{INTENTS}/request-1"])
    assert (intent.owner, intent.invocation_arn, bedrock.count("start")) == ("me", None, 0)


def test_what_is_prepared_is_started_without_another_look_at_its_source(clients, bedrock, starter, batch, monkeypatch):
    preparation = prepared(starter, batch)
    monkeypatch.setattr(clients, "etag", lambda uri: pytest.fail("its source was looked at again"))
    ending = attempt(starter, batch, preparation)
    assert ending.invocation.invocation_arn == bedrock.jobs["request-1"].arn
    assert Intent.of(clients.objects[f"{INTENTS}/request-1"]).invocation_arn == bedrock.jobs["request-1"].arn


def test_a_source_that_was_looked_at_long_ago_is_looked_at_again(clients, bedrock, clock, starter, batch):
    preparation = prepared(starter, batch)
    clients.etags[SOURCE] = "second"
    clock.sleep(31)
    assert attempt(starter, batch, preparation).error.code == "SourceChanged"
    assert bedrock.count("start") == 0


def test_what_was_prepared_under_an_earlier_fence_is_prepared_again(clients, starter, batch):
    preparation = prepared(starter, batch, fence=1)
    assert isinstance(attempt(starter, batch, preparation, fence=2), Held)


def test_a_preparation_that_has_failed_or_not_begun_is_made_anew(clients, bedrock, starter, batch):
    failed: Future[Prepared | Known | Held] = Future()
    failed.set_running_or_notify_cancel()
    failed.set_exception(OSError("no connection"))
    attempt(starter, batch, failed)
    waiting: Future[Prepared | Known | Held] = Future()
    attempt(starter, batch, waiting)
    assert waiting.cancelled()
    assert bedrock.count("start") == 1


def test_while_the_window_is_full_the_next_ones_are_prepared(clients, bedrock, clock, monkeypatch):
    monkeypatch.setattr(submitter_module, "CALLS_AT_ONCE", 4)
    monkeypatch.setattr(submitter_module, "_PREPARED_AT_ONCE", 2)
    clients.put_requests(*[request(n, priority=-n) for n in range(1, 6)])
    bedrock.add("stranger", ends=clock.now + 60)
    submission = Submission(
        MODEL,
        MANIFEST,
        max_in_flight=1,
        poll_interval=2.0,
        intents_uri=INTENTS,
        submitter_uri=SUBMITTER,
        adopt_since=clock.now - 86_400,
    )
    subject = ManifestSubmission(clients, submission, Submitter(clients, submission), stays=True)
    written, two = set(), threading.Event()
    write_if = clients.write_if

    def counting(uri, content, *, etag):
        answer = write_if(uri, content, etag=etag)
        if uri.startswith(INTENTS):
            written.add(uri.rpartition("/")[2])
            if len(written) == 2:
                two.set()
        return answer

    monkeypatch.setattr(clients, "write_if", counting)
    subject.step()
    assert two.wait(10)
    assert (written, bedrock.accepted) == ({"request-1", "request-2"}, [])


def test_all_requests_are_started_once_in_their_order_where_they_are_prepared(clients, bedrock, clock, monkeypatch):
    monkeypatch.setattr(submitter_module, "CALLS_AT_ONCE", 4)
    clients.put_requests(*[request(n, priority=-n) for n in range(1, 41)])
    bedrock.job_seconds = 7.0
    submission = Submission(
        MODEL,
        MANIFEST,
        max_in_flight=2,
        poll_interval=2.0,
        intents_uri=INTENTS,
        submitter_uri=SUBMITTER,
        adopt_since=clock.now - 86_400,
    )
    subject = ManifestSubmission(clients, submission, Submitter(clients, submission), stays=True)
    for _ in range(1000):
        if (seconds := subject.step()) is None:
            break
        clock.sleep(seconds)
    assert sorted(bedrock.accepted) == sorted(f"request-{n}" for n in range(1, 41))
    assert bedrock.most_in_progress <= 2
    intents = [json.loads(content) for uri, content in clients.objects.items() if uri.startswith(INTENTS)]
    assert len(intents) == 40
    assert all(one["invocation_arn"] for one in intents)


def test_who_waits_learns_from_the_looks_of_who_submits(clients, bedrock, clock, monkeypatch):
    noted = []

    class Listening:
        def note(self, summaries):
            noted.append({one["clientRequestToken"]: one["status"] for one in summaries})

    monkeypatch.setattr(submitter_module, "shared_list", lambda clients: Listening())
    clients.put_requests(*[request(n) for n in range(1, 5)])
    bedrock.job_seconds = 8.0
    submission = Submission(MODEL, MANIFEST, max_in_flight=1, poll_interval=2.0, adopt_since=clock.now - 86_400)
    subject = ManifestSubmission(clients, submission, Submitter(clients, submission))
    while (seconds := subject.step()) is not None:
        clock.sleep(seconds)
    assert any(one.get("request-1") == "Completed" for one in noted)
    assert bedrock.most_in_progress == 1
