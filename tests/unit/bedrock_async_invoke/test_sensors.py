from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred

from bedrock_async_invoke import sensors
from bedrock_async_invoke.sensors import BedrockAsyncInvokeSensor
from bedrock_async_invoke.submitter import ManifestSubmission, Submission, submit_blocking
from bedrock_async_invoke.triggers import BedrockAsyncInvokeTrigger
from tests.unit.bedrock_async_invoke.fake_aws import FOLDER, MANIFEST, MODEL, UNAVAILABLE, refusal, request

AWS = {"aws_conn_id": None, "region_name": "us-east-1", "verify": False, "botocore_config": {"read_timeout": 9}}
NOTHING = {
    "statuses_uri": f"{FOLDER}/statuses.jsonl",
    "completed": 0,
    "failed": 0,
    "in_progress": 0,
    "other": 0,
}


def sensor(**arguments: Any) -> BedrockAsyncInvokeSensor:
    return BedrockAsyncInvokeSensor(task_id="wait", **{**AWS, "deferrable": False, **arguments})


def poke_until_done(subject: BedrockAsyncInvokeSensor, clock) -> Any:
    for _ in range(1000):
        looked = subject.poke({})
        if looked.is_done:
            return looked.xcom_value
        clock.sleep(subject.poke_interval)
    raise AssertionError("it never ends")


@pytest.fixture
def started(clients, clock):
    clients.put_requests(request(1), request(2))
    submit_blocking(ManifestSubmission(clients, Submission(MODEL, MANIFEST, adopt_since=clock.now)))


def test_it_waits_until_all_have_ended_and_returns_counts(clients, bedrock, started, clock):
    bedrock.jobs["request-2"].status = "Failed"
    assert poke_until_done(sensor(manifest_uri=MANIFEST), clock) == {**NOTHING, "completed": 1, "failed": 1}
    assert set(clients.lines("statuses.jsonl")) == {"request-1", "request-2"}
    assert clients.parameters.as_dict() == AWS


@pytest.mark.parametrize("deferrable", [False, True])
def test_where_nothing_was_started_it_succeeds_with_zeros_and_says_so(clients, deferrable, caplog):
    assert sensor(manifest_uri=MANIFEST, deferrable=deferrable).execute({}) == NOTHING
    assert "nothing was started, so there is nothing to wait for" in caplog.text


def test_deferred_it_waits_in_the_triggerer(clients, started, clock):
    subject = sensor(manifest_uri=MANIFEST, deferrable=True, poke_interval=20, deadline=timedelta(hours=3))
    with pytest.raises(TaskDeferred) as deferral:
        subject.execute({})
    assert isinstance(deferral.value.trigger, BedrockAsyncInvokeTrigger)
    assert deferral.value.method_name == "execute_complete"
    assert deferral.value.trigger.serialize()[1] == {
        "manifest_uri": MANIFEST,
        "invocation_arn": None,
        "poll_interval": 20.0,
        "timeout_seconds": 10_800.0,
        "waiting_since": clock.now,
        "patience": 2,
        "initial_delay": 5,
        **AWS,
    }


def test_what_has_ended_already_needs_no_triggerer(clients, started, clock):
    clock.sleep(100)
    assert sensor(manifest_uri=MANIFEST, deferrable=True).execute({})["completed"] == 2


def test_what_the_trigger_counted_is_returned():
    assert sensor(manifest_uri=MANIFEST).execute_complete({}, {"status": "success", **NOTHING}) == NOTHING


def test_an_error_of_the_trigger_fails_the_task_with_its_message():
    with pytest.raises(AirflowException, match=r"requests\.jsonl failed: Bedrock could not be asked"):
        sensor(manifest_uri=MANIFEST).execute_complete({}, {"status": "error", "message": "Bedrock could not be asked"})


def test_of_many_none_fails_the_task(clients, bedrock, started, clock):
    for job in bedrock.jobs.values():
        job.status, job.failure_message = "Failed", "broken"
    assert poke_until_done(sensor(manifest_uri=MANIFEST), clock)["failed"] == 2


def test_one_that_fails_fails_the_task_with_bedrocks_own_message(clients, bedrock, clock):
    job = bedrock.add("token", status="Failed", failure_message="The file is broken")
    with pytest.raises(AirflowException, match="failed: The file is broken"):
        poke_until_done(sensor(invocation_arn=job.arn), clock)


def test_one_that_fails_while_it_is_deferred_fails_the_task_with_bedrocks_own_message():
    event = {
        **{"status": "success", "invocation_arn": "arn", "invocation_status": "Failed", "failure_message": "broken"},
        **{"completed": 0, "failed": 1, "in_progress": 0, "other": 0},
    }
    with pytest.raises(AirflowException, match="Invocation arn failed: broken"):
        sensor(invocation_arn="arn").execute_complete({}, event)


def test_one_that_has_not_ended_at_the_deadline_fails_the_task(clients, bedrock, clock):
    bedrock.job_seconds = 1e9
    job = bedrock.add("token")
    with pytest.raises(AirflowException, match="was InProgress at the deadline"):
        poke_until_done(sensor(invocation_arn=job.arn, deadline=timedelta(minutes=5)), clock)


def test_one_that_completes_returns_its_output(clients, bedrock, clock):
    job = bedrock.add("token")
    assert poke_until_done(sensor(invocation_arn=job.arn), clock)["output_uri"] == job.s3_uri


def test_one_that_bedrock_does_not_know_fails_at_once(clients, bedrock):
    with pytest.raises(AirflowException, match="ValidationException: The provided ARN is unknown"):
        sensor(invocation_arn="arn:unknown").poke({})
    assert bedrock.count("get") == 1


def test_an_outage_fails_the_task_saying_what_a_retry_does(clients, bedrock, started, clock):
    bedrock.list_faults.extend([UNAVAILABLE] * 50)
    with pytest.raises(AirflowException, match="a retry looks at them again and submits nothing"):
        poke_until_done(sensor(manifest_uri=MANIFEST), clock)


def test_a_missing_permission_fails_the_task_at_once(clients, bedrock, started):
    bedrock.list_faults.append(refusal("AccessDeniedException", "not allowed: bedrock:ListAsyncInvokes"))
    with pytest.raises(AirflowException, match="bedrock:ListAsyncInvokes"):
        sensor(manifest_uri=MANIFEST).poke({})


def test_rescheduled_each_look_is_the_first_one_and_stragglers_are_asked_for_all_the_same(
    clients, bedrock, started, clock
):
    bedrock.jobs["request-1"].hidden = True
    clock.sleep(100)
    looked = sensor(manifest_uri=MANIFEST, mode="reschedule").poke({})
    assert looked.is_done
    assert looked.xcom_value["completed"] == 2


def test_the_interval_has_two_names():
    assert sensor(manifest_uri=MANIFEST, poll_interval=7).poke_interval == 7
    assert sensor(manifest_uri=MANIFEST, poke_interval=8).poke_interval == 8
    assert sensor(manifest_uri=MANIFEST, poke_interval=timedelta(seconds=9))._watch.poll_interval == 9.0


@pytest.mark.parametrize("arguments", [{}, {"manifest_uri": MANIFEST, "invocation_arn": "arn"}])
def test_it_waits_for_one_or_for_many(arguments):
    with pytest.raises(ValueError, match="give either manifest_uri or invocation_arn"):
        sensor(**arguments)


def test_its_clients_are_shared(monkeypatch):
    asked: list[Any] = []
    monkeypatch.setattr(sensors, "shared_clients", lambda parameters: asked.append(parameters) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sensor(manifest_uri=MANIFEST).poke({})
    assert asked[0].as_dict() == AWS
