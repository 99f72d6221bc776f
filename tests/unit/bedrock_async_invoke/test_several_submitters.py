"""Several processes, each with a submitter of its own, over the same lease, tickets and intents."""

from __future__ import annotations

import json

import pytest

from bedrock_async_invoke.intents import Intent
from bedrock_async_invoke.submitter import ManifestSubmission, Submission, Submitter
from tests.unit.bedrock_async_invoke.fake_aws import MODEL, TIMED_OUT, LostAnswer, request

INTENTS, SUBMITTER = "s3://tables/intents", "s3://tables/submitter"


def manifest(name: str) -> str:
    return f"s3://work/runs/run-1/batches/{name}/requests.jsonl"


@pytest.fixture
def process(clients, clock):
    """Give a process that submits a manifest, with a submitter that no other has."""

    def process(name: str, *requests: dict, **changes) -> ManifestSubmission:
        clients.objects[manifest(name)] = "".join(f"{json.dumps(one)}\n" for one in requests).encode()
        settings = {
            "max_in_flight": None,
            "intents_uri": INTENTS,
            "submitter_uri": SUBMITTER,
            "adopt_since": clock.now - 86_400,
            "poll_interval": 5.0,
        }
        submission = Submission(MODEL, manifest(name), **{**settings, **changes})
        return ManifestSubmission(clients, submission, Submitter(clients, submission))

    return process


def outcomes(clients, name: str) -> dict[str, str]:
    content = clients.objects[f"s3://work/runs/run-1/batches/{name}/invocations.jsonl"]
    return {line["request_id"]: line["outcome"] for line in map(json.loads, content.splitlines())}


def run(clock, *processes: ManifestSubmission, seconds: float = 600) -> None:
    """Let processes take their steps in turn until all are done."""
    until, left = clock.now + seconds, list(processes)
    while left:
        assert clock.now < until, "it takes too long"
        left = [one for one in left if one.step() is not None]
        clock.sleep(1)


def starts(bedrock, token: str) -> int:
    return sum(name == "start" and call["client_request_token"] == token for name, call in bedrock.calls)


def test_the_holder_of_the_lease_submits_what_the_others_wait_for(clients, bedrock, clock, process):
    first, second = process("a", request(1)), process("b", request(2), request(3))
    bedrock.job_seconds = 30.0
    # The first one is kept busy by a window of one.
    run(clock, process("c", request(4), request(5), max_in_flight=1), first, second)
    assert set(outcomes(clients, "b").values()) == {"started"}
    owners = {Intent.of(content).owner for uri, content in clients.objects.items() if uri.startswith(INTENTS)}
    assert len(owners) == 1


def test_the_order_and_the_window_are_those_of_all_manifests_together(clients, bedrock, clock, process):
    bedrock.job_seconds = 20.0
    short = process("a", *[request(n, priority=1) for n in (1, 2, 3)], max_in_flight=2)
    long = process("b", *[request(n, priority=100) for n in (4, 5, 6)], max_in_flight=2)
    # A window that is full at first lets both put their tickets before anything is started.
    bedrock.add("stranger-1", ends=clock.now + 10)
    bedrock.add("stranger-2", ends=clock.now + 10)
    run(clock, short, long)
    assert bedrock.accepted == [f"request-{n}" for n in (4, 5, 6, 1, 2, 3)]
    assert bedrock.most_in_progress == 2


def test_two_that_want_the_same_request_submit_it_once(clients, bedrock, clock, process):
    one, other = process("a", request(1)), process("b", request(1))
    bedrock.forgets_tokens = True
    run(clock, one, other)
    assert starts(bedrock, "request-1") == 1
    assert sorted([*outcomes(clients, "a").values(), *outcomes(clients, "b").values()]) == ["adopted", "started"]


def test_two_submitters_that_share_no_lease_submit_the_same_request_once(clients, bedrock, clock, process):
    bedrock.forgets_tokens, bedrock.list_delay = True, 20.0
    one = process("a", request(1), submitter_uri="s3://tables/one")
    other = process("b", request(1), submitter_uri="s3://tables/other")
    run(clock, one, other)
    assert starts(bedrock, "request-1") == 1


def test_an_intent_without_an_invocation_is_taken_over_only_after_the_lists_lag(clients, bedrock, clock, process):
    begin = clock.now
    clients.write(f"{INTENTS}/request-1", Intent("request-1", "a-process-that-is-gone", 7, None).content)
    run(clock, process("a", request(1), list_lag_seconds=50.0))
    assert starts(bedrock, "request-1") == 1
    assert bedrock.jobs["request-1"].submitted - begin >= 50
    intent = Intent.of(clients.objects[f"{INTENTS}/request-1"])
    assert intent.invocation_arn == bedrock.jobs["request-1"].arn
    assert intent.owner != "a-process-that-is-gone"


def test_an_intent_whose_invocation_the_list_shows_late_is_adopted(clients, bedrock, clock, process):
    clients.write(f"{INTENTS}/request-1", Intent("request-1", "a-process-that-is-gone", 7, None).content)
    bedrock.list_delay, bedrock.forgets_tokens = 25.0, True
    bedrock.add("request-1")
    run(clock, process("a", request(1)))
    assert starts(bedrock, "request-1") == 0
    assert outcomes(clients, "a") == {"request-1": "adopted"}


def test_an_invocation_that_only_its_intent_knows_is_adopted(clients, bedrock, clock, process):
    known = Intent("request-1", "a-process-that-is-gone", 7, None, "arn:of-long-ago", "2026-10-01T00:00:00+00:00")
    clients.write(f"{INTENTS}/request-1", known.content)
    run(clock, process("a", request(1)))
    assert starts(bedrock, "request-1") == 0
    assert outcomes(clients, "a") == {"request-1": "adopted"}


def test_a_submitter_that_was_stopped_and_comes_back_starts_nothing(clients, bedrock, clock, process):
    """As with SIGSTOP and SIGCONT: it goes on at the very call before Start, an hour later."""
    stopped = process("a", *[request(n) for n in range(4)])
    successor = process("b", *[request(n) for n in range(4)])
    declared = clients.write_if

    def stop_after_the_intent(uri, content, *, etag):
        written = declared(uri, content, etag=etag)
        if uri.startswith(INTENTS) and b"null" in content:
            clients.write_if = declared
            clock.sleep(3600)
            run(clock, successor)
            bedrock.calls.clear()
        return written

    clients.write_if = stop_after_the_intent
    run(clock, stopped, seconds=5000)
    assert bedrock.count("start") == 0
    assert len(bedrock.accepted) == 4
    assert set(outcomes(clients, "a").values()) == {"adopted"}


def test_a_submitter_whose_lease_runs_out_during_a_call_hands_over_without_a_second_start(
    clients, bedrock, clock, process
):
    bedrock.forgets_tokens, bedrock.list_delay = True, 10.0
    bedrock.start_faults.append(LostAnswer(TIMED_OUT))
    slow, successor = process("a", request(1), request(2)), process("b", request(1), request(2))
    start = bedrock.start_async_invoke

    def hang(**arguments):
        bedrock.start_async_invoke = start
        try:
            return start(**arguments)
        finally:
            clock.sleep(100)
            successor.step()

    bedrock.start_async_invoke = hang
    run(clock, slow, successor)
    assert sorted(bedrock.accepted) == ["request-1", "request-2"]


def test_a_manifest_that_nobody_waits_for_any_more_is_not_submitted_further(clients, bedrock, clock, process):
    bedrock.job_seconds = 100.0
    holder = process("a", *[request(n) for n in range(4)], max_in_flight=1)
    gone = process("b", request(10, priority=-1), max_in_flight=1)
    holder.step()
    gone.step()
    run(clock, holder)
    assert starts(bedrock, "request-10") == 0


def test_a_manifest_that_is_withdrawn_is_not_submitted_further(clients, bedrock, clock, process):
    bedrock.job_seconds = 10.0
    holder = process("a", request(1), request(2), max_in_flight=1)
    withdrawn = process("b", request(10, priority=-1), max_in_flight=1)
    for _ in range(3):
        holder.step()
        withdrawn.step()
        clock.sleep(3)
    withdrawn.withdraw()
    run(clock, holder)
    assert starts(bedrock, "request-10") == 0


def test_a_ticket_that_can_not_be_read_holds_up_no_other(clients, bedrock, clock, process):
    clients.write(f"{SUBMITTER}/tickets/0.json", b"{")
    clients.write(f"{SUBMITTER}/tickets/1.json", json.dumps({"submission": {"model": 3}}).encode())
    gone = {"submission": {"model_id": MODEL, "manifest_uri": "s3://work/gone"}}
    clients.write(f"{SUBMITTER}/tickets/2.json", json.dumps(gone).encode())
    run(clock, process("a", request(1)))
    assert outcomes(clients, "a") == {"request-1": "started"}


def test_no_ticket_is_left_when_all_is_done(clients, bedrock, clock, process):
    run(clock, process("a", request(1)), process("b", request(2)))
    assert [uri for uri in clients.objects if "/tickets/" in uri] == []


def test_after_a_holder_that_ended_without_a_word_the_window_is_not_exceeded(clients, bedrock, clock, process):
    bedrock.list_delay, bedrock.job_seconds = 25.0, 500.0
    killed = process("a", request(1), request(2), max_in_flight=1)
    killed.step()
    assert len(bedrock.accepted) == 1
    run(clock, process("b", request(2), request(3), max_in_flight=1), seconds=2000)
    assert bedrock.most_in_progress == 1
