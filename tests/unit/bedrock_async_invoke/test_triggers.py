from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import UTC, datetime

import pytest
from airflow.sdk.module_loading import import_string

from bedrock_async_invoke import submitter, triggers
from bedrock_async_invoke.triggers import BedrockAsyncInvokeTrigger, BedrockStartAsyncInvokeTrigger
from tests.unit.bedrock_async_invoke.fake_aws import FOLDER, MANIFEST, MODEL, UNAVAILABLE, Clock, request

AWS = {
    "aws_conn_id": "my_aws",
    "region_name": "eu-west-1",
    "verify": False,
    "botocore_config": {"read_timeout": 9},
}
START = {
    "model_id": MODEL,
    "manifest_uri": MANIFEST,
    "request": None,
    "max_in_flight": 3,
    "kms_key_id": "arn:aws:kms:k",
    "bucket_owner": "123456789012",
    "tags": {"team": "video"},
    "check_source": False,
    "adopt_since": 1.5,
    "keep_refusals_since": None,
    "poll_interval": 0.01,
    "intents_uri": None,
    "submitter_uri": None,
    "lease_seconds": 60.0,
    "list_lag_seconds": 30.0,
    "initial_delay": 0.0,
}
WAIT = {
    "manifest_uri": MANIFEST,
    "invocation_arn": None,
    "poll_interval": 0.01,
    "timeout_seconds": 60.0,
    "waiting_since": 2.5,
    "patience": 1,
    "initial_delay": 0.0,
}


@pytest.fixture
def clock():
    """Give the real clock: triggers sleep on the event loop's."""
    return RealClock()


class RealClock(Clock):
    @property
    def now(self) -> float:
        return time.time()

    @now.setter
    def now(self, value: float) -> None: ...


async def event_of(trigger) -> dict:
    events = [event.payload async for event in trigger.run()]
    assert len(events) == 1
    return events[0]


@pytest.mark.parametrize(
    ("trigger_class", "arguments"), [(BedrockStartAsyncInvokeTrigger, START), (BedrockAsyncInvokeTrigger, WAIT)]
)
def test_another_trigger_is_made_of_what_a_trigger_serializes(trigger_class, arguments):
    path, kwargs = trigger_class(**arguments, **AWS).serialize()
    assert path == f"bedrock_async_invoke.triggers.{trigger_class.__name__}"
    assert kwargs == {**arguments, **AWS}
    again = import_string(path)(**json.loads(json.dumps(kwargs)))
    assert again.serialize() == (path, kwargs)


@pytest.fixture
def quick(bedrock):
    bedrock.job_seconds = 0.0
    return bedrock


async def test_the_start_trigger_submits_the_rest_and_sends_counts(clients, quick):
    clients.put_requests(request(1), request(2))
    event = await event_of(BedrockStartAsyncInvokeTrigger(**START, **AWS))
    assert event == {
        "status": "success",
        "invocations_uri": f"{FOLDER}/invocations.jsonl",
        "requests": 2,
        "started": 2,
        "adopted": 0,
        "reused": 0,
        "unanswered": 0,
        "refused": 0,
    }
    assert set(clients.lines("invocations.jsonl")) == {"request-1", "request-2"}
    assert clients.parameters.as_dict() == AWS


async def test_the_wait_trigger_writes_the_statuses_before_it_sends_counts(clients, quick):
    clients.put_requests(request(1))
    await event_of(BedrockStartAsyncInvokeTrigger(**START, **AWS))
    async for event in BedrockAsyncInvokeTrigger(**WAIT, **AWS).run():
        assert clients.lines("statuses.jsonl")["request-1"]["status"] == "Completed"
        assert event.payload == {
            "status": "success",
            "statuses_uri": f"{FOLDER}/statuses.jsonl",
            "completed": 1,
            "failed": 0,
            "in_progress": 0,
            "other": 0,
        }
    assert clients.parameters.as_dict() == AWS


async def test_a_failure_is_an_event_with_its_message(clients, quick):
    event = await event_of(BedrockStartAsyncInvokeTrigger(**START, **AWS))
    assert event["status"] == "error"
    assert event["message"].startswith(f"SubmissionFailedError: There is no manifest {MANIFEST}")


async def test_an_event_is_small_however_many_invocations_there_are(clients, quick):
    clients.put_requests(*[request(number) for number in range(200)])
    events = [
        await event_of(BedrockStartAsyncInvokeTrigger(**{**START, "max_in_flight": 200})),
        await event_of(BedrockAsyncInvokeTrigger(**WAIT)),
    ]
    assert events[1]["completed"] == 200
    assert len(json.dumps(events)) < 500


async def test_it_does_nothing_before_its_initial_delay_is_over(clients, quick):
    clients.put_requests(request(1))
    begin = time.monotonic()
    await event_of(BedrockStartAsyncInvokeTrigger(**{**START, "initial_delay": 0.2}))
    assert time.monotonic() - begin >= 0.2


async def test_the_event_loop_is_never_blocked_by_a_call(clients, quick, monkeypatch):
    """A probe on the loop measures how late it is woken while every call of AWS takes 50 ms."""

    def slowly(call):
        def wait_first(*arguments, **members):
            assert threading.current_thread() is not threading.main_thread()
            time.sleep(0.05)
            return call(*arguments, **members)

        return wait_first

    for target, name in [
        (clients, "read"),
        (clients, "write"),
        (clients, "etag"),
        (quick, "start_async_invoke"),
        (quick, "list_async_invokes"),
    ]:
        monkeypatch.setattr(target, name, slowly(getattr(target, name)))
    shared = triggers.shared_clients
    monkeypatch.setattr(triggers, "shared_clients", slowly(shared))
    clients.put_requests(request(1), request(2), request(3))

    lags: list[float] = []

    async def probe() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            lags.append(time.perf_counter() - before - 0.005)

    probing = asyncio.create_task(probe())
    started = await asyncio.gather(*[event_of(BedrockStartAsyncInvokeTrigger(**START)) for _ in range(3)])
    waited = await event_of(BedrockAsyncInvokeTrigger(**WAIT))
    probing.cancel()
    assert {event["status"] for event in [*started, waited]} == {"success"}
    assert len(lags) > 20
    # The median stands a busy machine; a blocking call would show in each of them.
    assert sorted(lags)[len(lags) // 2] < 0.02
    assert sum(lag > 0.045 for lag in lags) < len(lags) / 10


async def test_a_trigger_that_is_taken_away_starts_nothing_more(clients, quick, monkeypatch):
    monkeypatch.setattr(submitter, "CALLS_AT_ONCE", 1)
    clients.put_requests(*[request(number) for number in range(50)])
    second_start, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    start, write = quick.start_async_invoke, clients.write

    def hold_the_second(**arguments):
        if quick.count("start") == 1:
            second_start.set()
            assert go_on.wait(10)
        return start(**arguments)

    def note_the_end(uri, content):
        write(uri, content)
        ended.set()

    quick.start_async_invoke, clients.write = hold_the_second, note_the_end
    running = asyncio.create_task(event_of(BedrockStartAsyncInvokeTrigger(**START)))
    assert await asyncio.to_thread(second_start.wait, 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    go_on.set()
    assert await asyncio.to_thread(ended.wait, 10)
    assert quick.count("start") == 2
    assert len(clients.lines("invocations.jsonl")) == 2


async def test_a_trigger_that_runs_a_second_time_starts_nothing_twice(clients, quick):
    clients.put_requests(request(1), request(2))
    first = await event_of(BedrockStartAsyncInvokeTrigger(**START))
    assert await event_of(BedrockStartAsyncInvokeTrigger(**START)) == first
    assert quick.count("start") == 2


async def test_it_does_not_ask_again_for_what_its_task_was_refused_a_moment_ago(clients, quick):
    clients.put_requests(request(1), request(2))
    clients.objects[f"{FOLDER}/invocations.jsonl"] = json.dumps(
        {
            "request_id": "request-1",
            "invocation_arn": None,
            "outcome": "refused",
            "submitted_at": "2026-11-23T01:00:00+00:00",
            "error_code": "ValidationException",
        }
    ).encode()
    before = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
    event = await event_of(BedrockStartAsyncInvokeTrigger(**START | {"keep_refusals_since": before}))
    assert (event["started"], event["refused"]) == (1, 1)
    assert quick.count("start") == 1


async def test_an_outage_is_an_error_event_that_says_what_a_retry_does(clients, quick, monkeypatch):
    quick.list_faults.extend([UNAVAILABLE] * 20)
    clients.put_requests(request(1))
    event = await event_of(BedrockStartAsyncInvokeTrigger(**START))
    assert event["status"] == "error"
    assert "a retry goes on with the others" in event["message"]


async def test_cancelled_while_its_batch_is_made_it_leaves_none_behind(clients, quick, monkeypatch):
    clients.put_requests(request(1))
    is_making, may_go_on, made = threading.Event(), threading.Event(), []

    def made_late(*arguments, **members):
        is_making.set()
        assert may_go_on.wait(10)
        made.append(submitter.ManifestSubmission(*arguments, **members))
        return made[0]

    monkeypatch.setattr(triggers, "ManifestSubmission", made_late)
    waiting = asyncio.create_task(event_of(BedrockStartAsyncInvokeTrigger(**START)))
    assert await asyncio.to_thread(is_making.wait, 10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    may_go_on.set()
    async with asyncio.timeout(10):
        while not (made and made[0].stopped):  # noqa: ASYNC110 - a thread says it
            await asyncio.sleep(0.01)

    assert quick.accepted == []


async def test_killed_by_a_user_it_says_that_invocations_go_on(caplog):
    await BedrockStartAsyncInvokeTrigger(**START).on_kill()
    assert "can't stop an invocation" in caplog.text
