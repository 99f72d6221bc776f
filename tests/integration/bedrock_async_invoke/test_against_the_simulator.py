"""The package against a real S3 server and the Bedrock simulator, over the wire."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred
from airflow.sdk.module_loading import import_string

from bedrock_async_invoke.errors import AsyncInvokeError, Meaning
from bedrock_async_invoke.operators import BedrockStartAsyncInvokeOperator
from bedrock_async_invoke.sensors import BedrockAsyncInvokeSensor
from local_stack.processes import wait_until
from tests.integration.bedrock_async_invoke.conftest import AWS, MODEL, accepted

ROOT = Path(__file__).parents[3]


class TaskInstance(SimpleNamespace):
    def xcom_push(self, key: str, value: Any) -> None: ...


CONTEXT = {"ti": TaskInstance(dag_id="d", run_id="r", task_id="t", map_index=-1)}


def operator(batch, **arguments) -> BedrockStartAsyncInvokeOperator:
    settings = {"model_id": MODEL, "manifest_uri": batch.manifest_uri, "poll_interval": 0.2, "deferrable": False}
    return BedrockStartAsyncInvokeOperator(task_id="start", **{**AWS, **settings, **arguments})


def sensor(**arguments) -> BedrockAsyncInvokeSensor:
    settings = {"poll_interval": 0.2, "deadline": timedelta(minutes=2), "deferrable": False}
    return BedrockAsyncInvokeSensor(task_id="wait", **{**AWS, **settings, **arguments})


def run_deferrable(task) -> Any:
    """Run a task as worker and triggerer do, with what goes between them as JSON."""
    try:
        return task.execute(CONTEXT)
    except TaskDeferred as deferral:
        while True:
            path, kwargs = deferral.trigger.serialize()
            trigger = import_string(path)(**json.loads(json.dumps({**kwargs, "initial_delay": 0.0})))
            try:
                return getattr(task, deferral.method_name)(
                    CONTEXT, json.loads(json.dumps(asyncio.run(_event(trigger))))
                )
            except TaskDeferred as next_one:
                deferral = next_one


async def _event(trigger) -> dict[str, Any]:
    [event] = [event.payload async for event in trigger.run()]
    return event


def exists(batch, uri: str) -> bool:
    key = uri.removeprefix(f"s3://{batch.bucket}/")
    return batch.s3.list_objects_v2(Bucket=batch.bucket, Prefix=key)["KeyCount"] == 1


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_batch_goes_through_with_one_bad_object_failing_alone(batch, simulator, deferrable):
    simulator.settings(seconds_per_job=0.3)
    pictures = batch(6)
    simulator.faults({"kind": "failed", "source": pictures.uri(5), "message": "The picture can't be read"})
    pictures.s3.delete_object(Bucket=pictures.bucket, Key=pictures.key(0))
    pictures.s3.put_object(Bucket=pictures.bucket, Key=pictures.key(1), Body=b"another picture")
    run = run_deferrable if deferrable else lambda task: task.execute(CONTEXT)

    started = run(operator(pictures, max_in_flight=2, deferrable=deferrable))
    assert started == {
        "invocations_uri": pictures.manifest_uri.replace("requests", "invocations"),
        "requests": 6,
        "started": 4,
        "adopted": 0,
        "reused": 0,
        "refused": 2,
        "unanswered": 0,
    }
    invocations = pictures.lines("invocations.jsonl")
    assert [invocations[number]["error_code"] for number in range(3)] == ["SourceNotFound", "SourceChanged", None]

    waited = run(sensor(manifest_uri=pictures.manifest_uri, deferrable=deferrable))
    assert waited == {
        "statuses_uri": pictures.manifest_uri.replace("requests", "statuses"),
        "completed": 3,
        "failed": 1,
        "in_progress": 0,
        "other": 0,
    }
    statuses = pictures.lines("statuses.jsonl")
    assert set(statuses) == {2, 3, 4, 5}
    assert statuses[5]["failure_message"] == "The picture can't be read"
    assert all(exists(pictures, f"{statuses[number]['output_uri']}/output.json") for number in (2, 3, 4))
    for line in statuses.values():
        assert line["output_uri"].endswith(line["invocation_arn"].rpartition("/")[2])


def test_start_is_never_repeated_behind_the_callers_back(clients, simulator, batch):
    pictures = batch(1)
    simulator.faults({"kind": "error", "operation": "StartAsyncInvoke", "code": "ServiceUnavailableException"})
    before = simulator.calls().get("StartAsyncInvoke", {}).get("ServiceUnavailableException", 0)
    with pytest.raises(AsyncInvokeError) as failure:
        clients.bedrock.start_async_invoke(
            model_id=MODEL,
            model_input={"inputType": "text", "inputText": "a"},
            output_s3_uri=f"s3://{pictures.bucket}/o",
            client_request_token=pictures.token(0),
        )
    assert failure.value.meaning is Meaning.UNAVAILABLE
    assert simulator.calls()["StartAsyncInvoke"]["ServiceUnavailableException"] == before + 1


@pytest.mark.parametrize("kind", ["lost_response", "connection_reset"])
def test_a_connection_that_breaks_starts_nothing_twice_even_if_bedrock_forgets_its_tokens(batch, simulator, kind):
    simulator.settings(token_lifetime_seconds=0.0, list_delay_seconds=1.0)
    simulator.faults({"kind": kind, "operation": "StartAsyncInvoke", "after": 1, "count": 1})
    pictures = batch(3)
    summary = run_quickly(operator(pictures), list_lag=2.0)
    assert summary["started"] + summary["adopted"] == 3
    assert summary["adopted"] == (1 if kind == "lost_response" else 0)
    assert accepted(simulator, pictures) == [0, 1, 2]


@pytest.mark.parametrize("quota_error", ["ThrottlingException", "ServiceQuotaExceededException"])
def test_a_quota_below_the_window_slows_down_and_refuses_nothing(batch, simulator, quota_error):
    simulator.settings(max_in_flight=2, quota_error=quota_error, seconds_per_job=0.3)
    pictures = batch(6)
    assert operator(pictures, max_in_flight=20).execute(CONTEXT)["started"] == 6
    assert simulator.calls()["StartAsyncInvoke"][quota_error] > 0


def test_an_outage_fails_saying_what_is_kept_and_a_retry_goes_on(batch, simulator):
    # More than eight calls at once and all that the circuit breaker lets through, so that some are never tried.
    pictures = batch(40)
    outage = {"kind": "error", "operation": "StartAsyncInvoke", "code": "InternalServerException"}
    simulator.faults({**outage, "after": 2})
    task = operator(pictures)
    with pytest.raises(AirflowException, match=r"circuit breaker stays open.* 2 of 40 requests have an outcome"):
        run_quickly(task)
    assert len(pictures.lines("invocations.jsonl")) == 2
    simulator.clear_faults()
    assert operator(pictures).execute(CONTEXT)["started"] == 40
    assert sorted(accepted(simulator, pictures)) == list(range(40))


def test_a_request_that_is_never_answered_is_left_for_the_next_time_and_the_others_go_on(batch, simulator):
    pictures = batch(3)
    fault = {"kind": "error", "operation": "StartAsyncInvoke", "code": "InternalServerException"}
    simulator.faults({**fault, "source": pictures.uri(1)})
    summary = run_quickly(operator(pictures))
    assert (summary["started"], summary["unanswered"]) == (2, 1)
    simulator.clear_faults()
    assert operator(pictures).execute(CONTEXT)["started"] == 3


def run_quickly(task, *, list_lag: float = 0.1) -> Any:
    """Run a task with waits as short as they can be."""
    from bedrock_async_invoke import submitter
    from bedrock_async_invoke.submission import Patience, SubmissionWindow

    task.list_lag_seconds = list_lag
    patience = Patience(longest_wait=0.1, breaker_seconds=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submitter, "SubmissionWindow", lambda **k: SubmissionWindow(**k, patience=patience))
        return task.execute(CONTEXT)


SUBMIT = """
import sys
from bedrock_async_invoke.clients import AwsParameters, Clients
from bedrock_async_invoke.submitter import ManifestSubmission, Submission, submit_blocking
clients = Clients(AwsParameters(None, "us-east-1"))
submit_blocking(ManifestSubmission(clients, Submission(sys.argv[1], sys.argv[2])))
"""


def test_killed_outright_in_the_middle_a_retry_starts_nothing_twice_even_if_bedrock_forgets_its_tokens(
    batch, simulator
):
    simulator.settings(token_lifetime_seconds=0.0)
    simulator.faults({"kind": "slow_response", "operation": "StartAsyncInvoke", "seconds": 0.2})
    # Several rounds of calls that are under way at once.
    pictures = batch(40)
    process = subprocess.Popen(
        [sys.executable, "-c", SUBMIT, MODEL, pictures.manifest_uri],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'include'}:{ROOT / 'plugins'}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: len(accepted(simulator, pictures)) >= 3, seconds=30, what="three were started")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    started = len(accepted(simulator, pictures))
    assert 3 <= started < 40
    simulator.clear_faults()
    summary = operator(pictures).execute(CONTEXT)
    # What was on its way when the process ended may have been accepted after that.
    assert summary["adopted"] >= started
    assert summary["adopted"] + summary["started"] == 40
    assert sorted(accepted(simulator, pictures)) == list(range(40))


def test_without_its_record_a_retry_adopts_what_bedrock_lists_even_if_bedrock_forgets_its_tokens(batch, simulator):
    simulator.settings(token_lifetime_seconds=0.0)
    pictures = batch(3)
    operator(pictures).execute(CONTEXT)
    before = pictures.lines("invocations.jsonl")
    pictures.s3.delete_object(Bucket=pictures.bucket, Key="work/runs/r/batches/image-001/invocations.jsonl")
    summary = operator(pictures).execute(CONTEXT)
    assert (summary["adopted"], summary["started"]) == (3, 0)
    adopted = pictures.lines("invocations.jsonl")
    assert [line["invocation_arn"] for line in adopted.values()] == [line["invocation_arn"] for line in before.values()]
    assert accepted(simulator, pictures) == [0, 1, 2]
    assert sensor(manifest_uri=pictures.manifest_uri).execute(CONTEXT)["completed"] == 3


@pytest.mark.parametrize("code", ["ThrottlingException", "InternalServerException"])
def test_a_wait_outlives_a_list_that_fails_for_a_while(batch, simulator, code):
    pictures = batch(2)
    operator(pictures).execute(CONTEXT)
    simulator.faults({"kind": "error", "operation": "ListAsyncInvokes", "code": code, "count": 4})
    # Without botocore's own attempts each of them is a look that failed.
    once = {"retries": {"total_max_attempts": 1}}
    task = sensor(manifest_uri=pictures.manifest_uri, deferrable=True, botocore_config=once)
    assert run_deferrable(task)["completed"] == 2
    assert simulator.faults()[0]["struck"] == 4


def test_throttled_starts_are_made_in_the_triggerer_and_none_is_refused(batch, simulator):
    simulator.faults({"kind": "error", "operation": "StartAsyncInvoke", "code": "ThrottlingException", "rate": 0.5})
    pictures = batch(5)
    assert run_deferrable(operator(pictures, deferrable=True)) | {"invocations_uri": None} == {
        "invocations_uri": None,
        "requests": 5,
        "started": 5,
        "adopted": 0,
        "reused": 0,
        "refused": 0,
        "unanswered": 0,
    }
    assert accepted(simulator, pictures) == [0, 1, 2, 3, 4]


def test_one_invocation_that_fails_fails_the_task_with_bedrocks_own_message(batch, simulator):
    pictures = batch(1)
    simulator.faults({"kind": "failed", "message": "The picture can't be read"})
    one = {
        "model_id": MODEL,
        "model_input": {"inputType": "image", "mediaSource": {"s3Location": {"uri": pictures.uri(0)}}},
        "output_s3_uri": f"s3://{pictures.bucket}/one",
    }
    task = BedrockStartAsyncInvokeOperator(task_id="one", **AWS, **one, wait_for_completion=False, deferrable=False)
    arn = task.execute(CONTEXT)
    with pytest.raises(AirflowException, match="The picture can't be read"):
        sensor(invocation_arn=arn).execute(CONTEXT)
    task.deferrable, task.poll_interval = True, 0.2
    with pytest.raises(AirflowException, match="The picture can't be read"):
        run_deferrable(task)


def test_an_invocation_that_the_list_does_not_show_is_asked_for(batch, simulator):
    simulator.settings(list_delay_seconds=1e6)
    pictures = batch(2)
    operator(pictures).execute(CONTEXT)
    assert sensor(manifest_uri=pictures.manifest_uri).execute(CONTEXT)["completed"] == 2


def test_at_the_deadline_what_is_stuck_is_recorded_as_it_stands(batch, simulator):
    pictures = batch(2)
    simulator.faults(
        {"kind": "stuck", "source": pictures.uri(0)}, {"kind": "unknown_status", "source": pictures.uri(1)}
    )
    operator(pictures).execute(CONTEXT)
    waited = sensor(manifest_uri=pictures.manifest_uri, deadline=timedelta(seconds=2)).execute(CONTEXT)
    assert (waited["in_progress"], waited["other"]) == (1, 1)
    assert [pictures.lines("statuses.jsonl")[number]["status"] for number in (0, 1)] == ["InProgress", "Expired"]


async def test_many_batches_in_one_triggerer_leave_its_event_loop_free(batch, simulator):
    simulator.settings(seconds_per_job=0.3, max_in_flight=100)
    batches = [batch(3) for _ in range(6)]
    lags: list[float] = []

    async def probe() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            lags.append(time.perf_counter() - before - 0.01)

    for make in (
        lambda pictures: operator(pictures, max_in_flight=1000, deferrable=True),
        lambda pictures: sensor(manifest_uri=pictures.manifest_uri, deferrable=True, initial_delay=0),
    ):
        triggers = [_trigger_of(make(pictures)) for pictures in batches]
        probing = asyncio.create_task(probe())
        events = await asyncio.gather(*[_event(trigger) for trigger in triggers])
        probing.cancel()
        assert {event["status"] for event in events} == {"success"}
    assert sorted(lags)[len(lags) // 2] < 0.02
    assert max(lags) < 0.5


def _trigger_of(task) -> Any:
    """Return the trigger that a task would defer to, whether it needs one or not."""
    from bedrock_async_invoke.triggers import BedrockAsyncInvokeTrigger, BedrockStartAsyncInvokeTrigger

    if isinstance(task, BedrockStartAsyncInvokeOperator):
        submission = task._submission(CONTEXT).as_dict()
        return BedrockStartAsyncInvokeTrigger(**submission, initial_delay=0, **task._aws.as_dict())
    return BedrockAsyncInvokeTrigger(**task._watch.as_dict(), initial_delay=0, **task._aws.as_dict())
