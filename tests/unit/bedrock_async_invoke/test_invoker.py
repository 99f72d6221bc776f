"""What is done for each request, in which order, and what is left when it ends early."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bedrock_async_invoke import invoker as invoker_module
from bedrock_async_invoke.batch import SubmissionFailedError
from bedrock_async_invoke.claims import KEEPING_SECONDS
from bedrock_async_invoke.errors import AsyncInvokeError, Meaning
from bedrock_async_invoke.intents import INVOKE, Intent
from bedrock_async_invoke.invoker import Invoker, Invoking
from bedrock_async_invoke.manifest import invoke_id
from tests.unit.bedrock_async_invoke import virtual_time
from tests.unit.bedrock_async_invoke.fake_aws import (
    FOLDER,
    MANIFEST,
    MODEL,
    THROTTLED,
    TIMED_OUT,
    UNAVAILABLE,
    Clock,
    FakeBedrock,
    FakeClients,
    FakeRuntime,
    LostAnswer,
    refusal,
    request,
)

INTENTS = "s3://tables/intents"
CALL_SECONDS = 20.0
HOLDS_SECONDS = 2 * CALL_SECONDS + KEEPING_SECONDS
MODEL_ERROR = AsyncInvokeError(Meaning.UNAVAILABLE, "ModelErrorException", "the model failed")


def asked(number: int, **members: Any) -> dict[str, Any]:
    return request(number, **{"model_input": {"name": f"{number}"}, **members})


def output(number: int) -> str:
    token = f"request-{number}"
    return f"s3://work/outputs/{token}/{invoke_id(token)}/output.json"


def arn(number: int) -> str:
    return f"arn:aws:bedrock:us-east-1::invoke-model/{invoke_id(f'request-{number}')}"


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.clients = FakeClients(FakeBedrock(self.clock))
        self.runtime = FakeRuntime(self.clock)

    def invoker(self, **changes: Any) -> Invoker:
        invoking = Invoking(
            **{
                "model_id": MODEL,
                "manifest_uri": MANIFEST,
                "intents_uri": INTENTS,
                "call_seconds": CALL_SECONDS,
                **changes,
            }
        )
        return Invoker(self.clients, self.runtime, invoking, now=self.clock.monotonic)

    def run(self, **changes: Any) -> dict[str, Any]:
        invoker = self.invoker(**changes)
        virtual_time.run(self.clock, invoker.run())
        return invoker.summary()

    def lines(self, name: str) -> dict[str, dict[str, Any]]:
        return self.clients.lines(name)


@pytest.fixture(autouse=True)
def no_threads(monkeypatch) -> None:
    monkeypatch.setattr(invoker_module.asyncio, "to_thread", virtual_time.at_once)


@pytest.fixture
def world() -> World:
    return World()


def killed_while(world: World, is_so: Callable[[], bool], **changes: Any) -> None:
    virtual_time.run_until_killed(world.clock, world.invoker(**changes).run(), is_so)


def test_every_answer_is_kept_and_told_of_as_that_of_a_job_would_be(world):
    world.clients.put_requests(asked(1), asked(2))
    assert world.run() == {
        "invocations_uri": f"{FOLDER}/invocations.jsonl",
        "statuses_uri": f"{FOLDER}/statuses.jsonl",
        "requests": 2,
        "started": 2,
        "adopted": 0,
        "reused": 0,
        "refused": 0,
        "unanswered": 0,
        "lost_answers": 0,
    }
    assert world.clients.objects[output(1)] == b'{"data": []}'
    invocation, status = world.lines("invocations.jsonl")["request-1"], world.lines("statuses.jsonl")["request-1"]
    assert (invocation["invocation_arn"], invocation["outcome"]) == (arn(1), "started")
    assert (status["status"], status["invocation_arn"]) == ("Completed", arn(1))
    assert f"{status['output_uri']}/output.json" == output(1)


def test_an_intent_is_there_before_the_call_and_the_output_before_anything_is_said_of_it(world):
    seen: list[bool] = []

    class Watching(FakeRuntime):
        async def invoke_model(self, model_id: str, body: bytes) -> bytes:
            seen.append(f"{INTENTS}/request-1" in world.clients.objects)
            return await super().invoke_model(model_id, body)

    world.runtime = Watching(world.clock)
    world.clients.put_requests(asked(1))
    world.run()
    assert seen == [True]
    intent = Intent.of(world.clients.objects[f"{INTENTS}/request-1"])
    assert (intent.operation, intent.holds_seconds) == (INVOKE, HOLDS_SECONDS)
    order = list(world.clients.written_at)
    assert order.index(output(1)) < order.index(f"{FOLDER}/invocations.jsonl")


def test_no_more_calls_are_under_way_than_allowed(world):
    world.clients.put_requests(*[asked(number) for number in range(50)])
    world.run(max_concurrent=7)
    assert world.runtime.most_under_way == 7


def test_throttling_slows_down_and_refuses_nothing(world):
    world.runtime.quota_per_second = 10.0
    world.clients.put_requests(*[asked(number) for number in range(300)])
    began = world.clock.now
    assert world.run()["started"] == 300
    assert 300 / (world.clock.now - began) >= 0.9 * 10.0
    assert world.runtime.calls <= 1.2 * 300


@pytest.mark.parametrize(
    ("etag", "code"), [(None, "SourceNotFound"), ("another", "SourceChanged")], ids=["deleted", "replaced"]
)
def test_a_source_that_is_not_the_one_that_was_listed_is_refused_without_a_call(world, etag, code):
    world.clients.put_requests(asked(1, source_uri="s3://media/a", source_etag="the one"), asked(2))
    if etag is not None:
        world.clients.etags["s3://media/a"] = etag
    assert world.run()["refused"] == 1
    assert world.lines("invocations.jsonl")["request-1"]["error_code"] == code
    assert world.runtime.paid == ["2"]


def test_a_request_that_bedrock_refuses_fails_alone(world):
    world.clients.put_requests(asked(1), asked(2), asked(3))
    world.runtime.errors["2"] = refusal("ValidationException", "the picture is broken")
    assert world.run()["refused"] == 1
    line = world.lines("invocations.jsonl")["request-2"]
    assert (line["error_code"], line["error_message"]) == ("ValidationException", "the picture is broken")
    assert world.runtime.paid == ["1", "3"]


def test_what_a_model_fails_over_each_time_is_the_requests_fault_and_what_is_never_answered_is_left_for_later(world):
    world.clients.put_requests(asked(1), asked(2), *[asked(number) for number in range(3, 40)])
    world.runtime.errors = {"1": MODEL_ERROR, "2": UNAVAILABLE}
    summary = world.run()
    assert (summary["started"], summary["refused"], summary["unanswered"]) == (37, 1, 1)
    assert world.lines("invocations.jsonl")["request-1"]["error_code"] == "ModelErrorException"
    assert set(world.lines("statuses.jsonl")) == {f"request-{number}" for number in range(3, 40)}


def test_contents_are_filled_in_when_they_are_sent(world):
    world.clients.write("s3://media/a", b"a picture")
    place = {"model_input": {"name": "1", "mediaSource": {"base64String": ""}}}
    member = {"content_member": ["mediaSource", "base64String"], "source_uri": "s3://media/a"}
    world.clients.put_requests(asked(1, **place, **member, source_etag=world.clients.etag("s3://media/a")))
    world.run()
    assert world.runtime.bodies == [
        {"name": "1", "mediaSource": {"base64String": base64.b64encode(b"a picture").decode()}}
    ]


def test_contents_that_were_replaced_are_not_sent(world):
    world.clients.write("s3://media/a", b"another picture")
    member = {"content_member": ["base64String"], "source_uri": "s3://media/a", "source_etag": "the one"}
    world.clients.put_requests(asked(1, **member))
    assert world.run()["refused"] == 1
    assert world.runtime.paid == []


def test_a_lost_answer_is_asked_for_again_and_counted_since_it_may_be_paid_for(world):
    world.runtime.faults.append(LostAnswer(TIMED_OUT))
    world.clients.put_requests(asked(1), asked(2))
    summary = world.run(max_concurrent=1)
    assert (summary["started"], summary["lost_answers"]) == (2, 1)
    assert world.lines("invocations.jsonl")["request-1"]["lost_answers"] == 1
    assert world.runtime.paid == ["1", "1", "2"]


def test_an_error_that_is_an_answer_is_none_that_was_lost(world):
    world.runtime.faults.extend([UNAVAILABLE, THROTTLED])
    world.clients.put_requests(asked(1))
    assert world.run()["lost_answers"] == 0


def test_a_process_that_is_killed_is_gone_on_with_and_only_what_has_no_output_is_sent_again(world):
    world.clients.put_requests(*[asked(number) for number in range(20)])
    killed_while(world, lambda: len(world.clients.outputs) >= 12, max_concurrent=4)
    kept, paid = len(world.clients.outputs), list(world.runtime.paid)
    assert kept < 20
    began = world.clock.now
    summary = world.run(max_concurrent=4)
    assert summary["started"] + summary["adopted"] == 20
    # Those that were under way when it was killed may be paid for twice, and are counted.
    again = [name for name in world.runtime.paid if world.runtime.paid.count(name) == 2]
    assert len(again) // 2 <= summary["lost_answers"] <= 4
    assert len(world.runtime.paid) <= len(paid) + 20 - kept
    # They were sent again only when nobody could be at it any more.
    assert world.clock.now - began >= HOLDS_SECONDS - 10


def test_of_two_at_the_same_moment_one_pays_and_the_other_takes_its_answer(world):
    world.clients.put_requests(*[asked(number) for number in range(10)])
    first, second = world.invoker(), world.invoker()

    async def both() -> None:
        await asyncio.gather(first.run(), second.run())

    virtual_time.run(world.clock, both())
    assert world.runtime.paid == sorted(f"{number}" for number in range(10))
    counts = [first.summary(), second.summary()]
    assert sum(one["started"] for one in counts) == 10
    assert all(one["started"] + one["adopted"] == 10 for one in counts)
    assert [one["lost_answers"] for one in counts] == [0, 0]


def test_one_that_is_throttled_for_long_keeps_its_claims(world):
    world.clients.put_requests(asked(1))
    world.runtime.faults.extend([THROTTLED] * 12)
    first, second = world.invoker(), world.invoker()

    async def both() -> None:
        other = asyncio.ensure_future(first.run())
        await asyncio.sleep(0.1)
        await second.run()
        await other

    virtual_time.run(world.clock, both())
    assert world.runtime.paid == ["1"]
    assert first.summary()["started"] + second.summary()["started"] == 1


def test_whoever_waits_for_anothers_answer_gives_up_at_the_deadline_and_calls_nothing(world):
    world.clients.put_requests(asked(1))
    holds_on = Intent("request-1", "another", 0, MANIFEST, operation=INVOKE, holds_seconds=1e6)
    world.clients.write(f"{INTENTS}/request-1", holds_on.content)
    assert world.run(deadline_seconds=60.0)["unanswered"] == 1
    assert world.runtime.calls == 0
    assert "another has been about to send it" in world.lines("invocations.jsonl")["request-1"]["error_message"]


def test_what_an_earlier_run_has_started_as_a_job_is_waited_for(world):
    world.clients.put_requests(asked(1))
    job = world.clients.bedrock.add("request-1")
    intent = Intent("request-1", "another", 1, MANIFEST, invocation_arn=job.arn)
    world.clients.write(f"{INTENTS}/request-1", intent.content)
    assert world.run()["adopted"] == 1
    assert world.runtime.calls == 0
    status = world.lines("statuses.jsonl")["request-1"]
    assert (status["status"], status["invocation_arn"]) == ("Completed", job.arn)


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_job_whose_start_nobody_knows_the_end_of_is_looked_for_in_the_list(world, is_listed):
    world.clients.put_requests(asked(1))
    world.clients.write(f"{INTENTS}/request-1", Intent("request-1", "another", 1, MANIFEST).content)
    if is_listed:
        world.clients.bedrock.add("request-1")
    summary = world.run()
    assert (summary["adopted"], summary["started"]) == ((1, 0) if is_listed else (0, 1))


def test_when_it_is_told_to_stop_what_is_under_way_is_kept_and_the_rest_is_left(world):
    world.clients.put_requests(*[asked(number) for number in range(20)])
    invoker = world.invoker(max_concurrent=3)

    async def stopped() -> None:
        running = asyncio.ensure_future(invoker.run())
        await asyncio.sleep(1.2)
        invoker.stop()
        await running

    with pytest.raises(SubmissionFailedError, match=r"Invoking was stopped\. 9 of 20 requests have an outcome"):
        virtual_time.run(world.clock, stopped())
    assert len(world.clients.outputs) == len(world.runtime.paid) == 9
    assert world.run()["started"] == 20
    assert len(world.runtime.paid) == 20


def test_an_outage_ends_it_with_what_is_kept_and_the_reason(world):
    world.clients.put_requests(*[asked(number) for number in range(60)])
    world.runtime.errors = {f"{number}": UNAVAILABLE for number in range(20, 60)}
    with pytest.raises(SubmissionFailedError, match="InternalServerException"):
        world.run(max_concurrent=10)
    assert len(world.lines("invocations.jsonl")) == 20
    world.runtime.errors.clear()
    assert world.run()["started"] == 60
    assert len(world.runtime.paid) == 60


def test_an_answer_that_can_be_kept_at_a_later_try_is_not_asked_for_again(world):
    world.clients.put_requests(asked(1))
    world.clients.unwritable = 3
    world.run()
    assert world.runtime.paid == ["1"]
    assert world.clients.outputs == [output(1)]


def test_an_answer_that_cannot_be_kept_fails_the_task_and_is_counted_when_it_is_asked_for_again(world):
    world.clients.put_requests(asked(1), asked(2))
    world.clients.unwritable = 5
    with pytest.raises(AsyncInvokeError):
        world.run(max_concurrent=1)
    summary = world.run()
    assert (summary["started"], summary["lost_answers"]) == (2, 1)


def test_an_output_that_the_plan_has_found_is_reused(world):
    folder = output(1).removesuffix("/output.json")
    world.clients.put_requests(asked(1, finished_output_uri=folder))
    assert world.run()["reused"] == 1
    assert world.lines("invocations.jsonl")["request-1"]["invocation_arn"] == arn(1)
    assert world.lines("statuses.jsonl")["request-1"]["output_uri"] == folder
    assert world.runtime.calls == 0


def test_an_output_of_an_earlier_attempt_is_told_by_the_request_that_it_was_made_for(world):
    folder = output(7).removesuffix("/output.json")
    world.clients.put_requests(
        asked(1, finished_output_uri=folder), asked(2, finished_output_uri="s3://work/outputs/request-2/lvmxrnjf5mo3")
    )
    world.run()
    lines = world.lines("invocations.jsonl")
    assert lines["request-1"]["invocation_arn"] == arn(7)
    assert lines["request-2"]["invocation_arn"] == "arn:aws:bedrock:us-east-1::async-invoke/lvmxrnjf5mo3"


def test_expired_credentials_are_taken_up_anew(world):
    world.runtime.faults.append(AsyncInvokeError(Meaning.UNAUTHENTICATED, "ExpiredTokenException", "expired"))
    world.clients.put_requests(asked(1))
    assert world.run()["started"] == 1
    assert (world.clients.renewed, world.runtime.renewed) == (1, 1)


def test_without_a_manifest_nothing_is_sent(world):
    with pytest.raises(SubmissionFailedError, match="There is no manifest"):
        world.invoker()


FAULTS = st.lists(
    st.sampled_from([None, THROTTLED, UNAVAILABLE, LostAnswer(TIMED_OUT), refusal("ValidationException")])
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=FAULTS, requests=st.integers(1, 15), at_once=st.integers(1, 5), kills=st.lists(st.integers(0, 6), max_size=2)
)
def test_whatever_goes_wrong_nothing_is_paid_for_beyond_what_is_counted_and_all_is_on_record(
    faults, requests, at_once, kills
):
    world = World()
    world.runtime.faults.extend(faults)
    world.clients.put_requests(*[asked(number) for number in range(requests)])
    for kept in kills:
        killed_while(world, lambda: len(world.clients.outputs) >= kept, max_concurrent=at_once)  # noqa: B023
    summary = world.run(max_concurrent=at_once)
    lines = world.lines("invocations.jsonl")
    assert len(lines) == requests
    for line in lines.values():
        name = line["request_id"].removeprefix("request-")
        has_output = output(int(name)) in world.clients.objects
        assert has_output == (line["outcome"] in ("started", "adopted"))
        assert world.runtime.paid.count(name) <= has_output + line["lost_answers"]
    assert json.dumps(summary)
