from __future__ import annotations

import inspect
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred
from airflow.sdk import DAG, task_group

from bedrock_async_invoke.hooks import BedrockAsyncInvokeHook
from bedrock_async_invoke.operators import BedrockStartAsyncInvokeOperator
from bedrock_async_invoke.sensors import BedrockAsyncInvokeSensor
from bedrock_async_invoke.triggers import BedrockAsyncInvokeTrigger, BedrockStartAsyncInvokeTrigger
from tests.unit.bedrock_async_invoke.fake_aws import (
    FOLDER,
    MANIFEST,
    MODEL,
    THROTTLED,
    TIMED_OUT,
    UNAVAILABLE,
    LostAnswer,
    refusal,
    request,
)

AWS = {"aws_conn_id": None, "region_name": "us-east-1", "verify": False, "botocore_config": {"read_timeout": 9}}
ONE = {"model_id": MODEL, "model_input": {"inputType": "video"}, "output_s3_uri": "s3://work/outputs/film"}
MANY = {"model_id": MODEL, "manifest_uri": MANIFEST}


@pytest.fixture(scope="module")
def hook():
    return BedrockAsyncInvokeHook(aws_conn_id=None, region_name="us-east-1")


@pytest.fixture(autouse=True)
def one_hook_for_all(hook, monkeypatch):
    """Save the tenths of a second that making a client takes."""
    monkeypatch.setattr(BedrockStartAsyncInvokeOperator, "hook", hook)


class TaskInstance(SimpleNamespace):
    def __init__(self, **identity: Any) -> None:
        super().__init__(**{"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1, **identity})
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


@pytest.fixture
def context():
    return {"ti": TaskInstance()}


def operator(**arguments: Any) -> BedrockStartAsyncInvokeOperator:
    return BedrockStartAsyncInvokeOperator(task_id="start", **{**AWS, "deferrable": False, **arguments})


def deferred(call, *arguments: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as deferral:
        call(*arguments)
    return deferral.value


def test_the_requests_of_a_manifest_are_started_and_counted(clients, context):
    clients.put_requests(request(1), request(2))
    assert operator(**MANY).execute(context) == {
        "invocations_uri": f"{FOLDER}/invocations.jsonl",
        "requests": 2,
        "started": 2,
        "adopted": 0,
        "reused": 0,
        "refused": 0,
        "unanswered": 0,
    }
    assert clients.parameters.as_dict() == AWS


def test_a_window_with_room_for_all_needs_no_triggerer(clients, context):
    clients.put_requests(request(1), request(2))
    assert operator(**MANY, deferrable=True).execute(context)["started"] == 2


def test_a_full_window_is_waited_for_in_the_triggerer(clients, context, clock):
    clients.put_requests(*[request(number) for number in range(5)])
    settings = {"max_in_flight": 2, "kms_key_id": "arn:aws:kms:k", "bucket_owner": "1", "tags": {"a": "b"}}
    task = operator(**MANY, **settings, deferrable=True, check_source=False, poll_interval=30)
    deferral = deferred(task.execute, context)
    assert deferral.method_name == "execute_complete"
    assert isinstance(deferral.trigger, BedrockStartAsyncInvokeTrigger)
    _, kwargs = deferral.trigger.serialize()
    assert kwargs.pop("initial_delay") == 5.0
    assert kwargs == {
        **MANY,
        **settings,
        **AWS,
        "request": None,
        "check_source": False,
        "adopt_since": clock.now - 86_400,
        "poll_interval": 30,
        "keep_refusals_since": clock.now,
        "intents_uri": None,
        "submitter_uri": None,
        "lease_seconds": 60.0,
        "list_lag_seconds": 30.0,
    }
    assert len(clients.lines("invocations.jsonl")) == 2


def test_a_trigger_never_begins_within_the_first_seconds(clients, bedrock, context):
    deferral = deferred(operator(**ONE, deferrable=True, poll_interval=1).execute, context)
    assert deferral.trigger.serialize()[1]["initial_delay"] == 5
    clients.put_requests(request(1))
    bedrock.start_faults.append(THROTTLED)
    deferral = deferred(operator(**MANY, deferrable=True, poll_interval=1).execute, context)
    assert deferral.trigger.serialize()[1]["initial_delay"] == 5


def test_what_the_trigger_counted_is_returned():
    counts = {"invocations_uri": "u", "requests": 1, "started": 1, "adopted": 0, "refused": 0}
    assert operator(**MANY).execute_complete({}, {"status": "success", **counts}) == counts


def test_an_error_of_the_trigger_fails_the_task_with_its_message():
    with pytest.raises(AirflowException, match="Bedrock could not be relied on"):
        operator(**MANY).execute_complete({}, {"status": "error", "message": "Bedrock could not be relied on"})
    with pytest.raises(AirflowException, match="event is None"):
        operator(**MANY).execute_complete({}, None)


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_outage_fails_the_task_and_keeps_what_was_started(clients, bedrock, context, deferrable):
    clients.put_requests(*[request(number) for number in range(1, 41)])
    bedrock.start_faults.extend([None, *[UNAVAILABLE] * 100])
    task = operator(**MANY, deferrable=deferrable)
    if deferrable:
        deferred(task.execute, context)
    else:
        with pytest.raises(AirflowException, match="1 of 40 requests have an outcome"):
            task.execute(context)
    assert set(clients.lines("invocations.jsonl")) == {"request-1"}


def test_one_invocation_is_started_waited_for_and_returned(clients, bedrock, context):
    arn = operator(**ONE).execute(context)
    [job] = bedrock.jobs.values()
    assert arn == job.arn
    assert bedrock.clock.now >= job.ends
    assert clients.objects == {}


def test_one_invocation_is_returned_at_once_if_it_is_not_to_be_waited_for(clients, bedrock, context):
    operator(**ONE, wait_for_completion=False).execute(context)
    [job] = bedrock.jobs.values()
    assert bedrock.clock.now == job.submitted


def test_one_invocation_is_waited_for_in_the_triggerer(clients, bedrock, context, clock):
    task = operator(**ONE, deferrable=True, deadline=timedelta(hours=2))
    deferral = deferred(task.execute, context)
    [job] = bedrock.jobs.values()
    assert isinstance(deferral.trigger, BedrockAsyncInvokeTrigger)
    assert deferral.trigger.serialize()[1] == {
        "manifest_uri": None,
        "invocation_arn": job.arn,
        "poll_interval": 15,
        "timeout_seconds": 7200.0,
        "waiting_since": clock.now,
        "patience": 2,
        "initial_delay": 15,
        **AWS,
    }
    event = {"status": "success", "invocation_arn": job.arn, "invocation_status": "Completed", "failure_message": None}
    assert getattr(task, deferral.method_name)(context, event) == job.arn


def test_one_invocation_that_is_throttled_is_started_and_waited_for_in_the_triggerer(clients, bedrock, context):
    bedrock.start_faults.append(THROTTLED)
    task = operator(**ONE, client_request_token="token", deferrable=True)
    first = deferred(task.execute, context)
    assert isinstance(first.trigger, BedrockStartAsyncInvokeTrigger)
    kwargs = first.trigger.serialize()[1]
    assert kwargs["request"] == {
        "request_id": "token",
        "model_input": ONE["model_input"],
        "output_uri": ONE["output_s3_uri"],
    }
    submitted = {"status": "success", "invocation_arn": "arn:x/abc", "error_code": None, "error_message": None}
    second = deferred(getattr(task, first.method_name), context, submitted)
    assert second.trigger.serialize()[1]["invocation_arn"] == "arn:x/abc"
    assert second.method_name == "execute_complete"


def test_a_failed_invocation_fails_the_task_with_bedrocks_own_message(clients, bedrock, context):
    bedrock.add("token", status="Failed", failure_message="The file is broken")
    with pytest.raises(AirflowException, match=r"Invocation arn:.* failed: The file is broken"):
        operator(**ONE, client_request_token="token").execute(context)


def test_an_invocation_that_has_not_ended_at_the_deadline_fails_the_task(clients, bedrock, context):
    bedrock.job_seconds = 1e6
    with pytest.raises(AirflowException, match=r"was InProgress at the deadline\. Bedrock can't stop it"):
        operator(**ONE, deadline=timedelta(minutes=5)).execute(context)


def test_a_refused_invocation_fails_the_task_with_bedrocks_own_message(clients, bedrock, context):
    bedrock.start_errors["token"] = refusal("ValidationException", "The model doesn't support async inference")
    with pytest.raises(AirflowException, match="ValidationException: The model doesn't support async inference"):
        operator(**ONE, client_request_token="token").execute(context)


def test_a_retry_of_one_invocation_starts_no_other(clients, bedrock):
    for try_number in (1, 2):
        operator(**ONE, wait_for_completion=False).execute({"ti": TaskInstance(try_number=try_number)})
    assert len(bedrock.jobs) == 1


@pytest.mark.parametrize(
    ("identity", "changes"),
    [
        ({"map_index": 3}, {}),
        ({"run_id": "other"}, {}),
        ({}, {"model_input": {"inputType": "audio"}}),
        ({}, {"output_s3_uri": "s3://work/outputs/other"}),
    ],
)
def test_another_task_instance_or_input_starts_another_invocation(clients, bedrock, context, identity, changes):
    operator(**ONE, wait_for_completion=False).execute(context)
    operator(**{**ONE, **changes}, wait_for_completion=False).execute({"ti": TaskInstance(**identity)})
    assert len(bedrock.jobs) == 2


def test_an_answer_that_was_lost_starts_no_second_invocation(clients, bedrock, context):
    bedrock.start_faults.append(LostAnswer(TIMED_OUT))
    operator(**ONE, wait_for_completion=False).execute(context)
    assert bedrock.count("start") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"model_id": MODEL},
        {**ONE, **MANY},
        {"model_id": MODEL, "model_input": {}},
        {"model_id": MODEL, "output_s3_uri": "s3://b"},
        {**MANY, "output_s3_uri": "s3://b"},
        {**MANY, "client_request_token": "token"},
        {**MANY, "max_in_flight": 0},
    ],
)
def test_arguments_that_contradict_each_other_are_refused_when_the_dag_is_parsed(arguments):
    with pytest.raises(ValueError, match=r"give either|leave client_request_token out|max_in_flight is at least 1"):
        operator(**arguments)


def test_the_output_is_linked(clients, bedrock, context):
    clients.put_requests(request(1))
    operator(**MANY).execute(context)
    assert context["ti"].pushed["bedrock_async_invoke_output"] == {
        "region_name": "us-east-1",
        "aws_domain": "aws.amazon.com",
        "output_s3_uri": "s3://work/outputs",
    }
    arn = operator(**ONE).execute(context)
    assert context["ti"].pushed["bedrock_async_invoke_output"]["output_s3_uri"] == (
        f"s3://work/outputs/film/{arn.rpartition('/')[2]}"
    )


def test_killed_it_starts_nothing_more_and_says_that_bedrock_goes_on(clients, bedrock, context, monkeypatch):
    clients.put_requests(request(1), request(2), request(3))
    task = operator(**MANY)
    warnings: list[str] = []
    monkeypatch.setattr(
        type(task.log), "warning", lambda self, message, *rest, **more: warnings.append(message), raising=False
    )
    start = bedrock.start_async_invoke

    def kill_before(**arguments):
        task.on_kill()
        return start(**arguments)

    bedrock.start_async_invoke = kill_before
    with pytest.raises(AirflowException, match="Submitting was stopped"):
        task.execute(context)
    assert set(clients.lines("invocations.jsonl")) == {"request-1"}
    assert any("can't stop an invocation" in warning for warning in warnings)


@pytest.mark.parametrize("operator_class", [BedrockStartAsyncInvokeOperator, BedrockAsyncInvokeSensor])
def test_every_template_field_is_an_argument_and_an_attribute(operator_class):
    arguments = MANY if operator_class is BedrockStartAsyncInvokeOperator else {"manifest_uri": MANIFEST}
    task = operator_class(task_id="t", **arguments, **AWS)
    assert {"manifest_uri", "aws_conn_id", "region_name", "verify"} <= set(operator_class.template_fields)
    accepted = {name for each in operator_class.__mro__ for name in inspect.signature(each.__init__).parameters}
    for field in operator_class.template_fields:
        assert hasattr(task, field)
        assert field in accepted


def test_every_template_field_is_rendered():
    one = operator(
        model_id="{{ model }}",
        model_input={"inputText": "{{ text }}"},
        output_s3_uri="s3://work/{{ text }}",
        client_request_token="{{ text }}",
        kms_key_id="{{ text }}",
        bucket_owner="{{ text }}",
        tags={"run": "{{ text }}"},
        region_name="{{ text }}",
    )
    one.render_template_fields({"model": MODEL, "text": "t"})
    assert {field: getattr(one, field) for field in one.template_fields if field in vars(one)} == {
        "model_id": MODEL,
        "manifest_uri": None,
        "model_input": {"inputText": "t"},
        "output_s3_uri": "s3://work/t",
        "client_request_token": "t",
        "kms_key_id": "t",
        "bucket_owner": "t",
        "tags": {"run": "t"},
        "intents_uri": None,
        "submitter_uri": None,
        "aws_conn_id": None,
        "region_name": "t",
        "verify": False,
    }
    wait = BedrockAsyncInvokeSensor(task_id="wait", manifest_uri="{{ m }}", region_name="{{ r }}")
    wait.render_template_fields({"m": MANIFEST, "r": "eu-west-1"})
    assert (wait.manifest_uri, wait.region_name, wait.batch_name) == (MANIFEST, "eu-west-1", "video-001")


def test_both_know_the_batch_by_its_folder():
    assert operator(**MANY).batch_name == "video-001"
    assert BedrockAsyncInvokeSensor(task_id="t", manifest_uri=MANIFEST).batch_name == "video-001"
    assert operator(**ONE).batch_name == ""


def test_both_work_inside_a_mapped_task_group_where_the_manifest_is_not_known_yet():
    with DAG("d", schedule=None) as dag:

        @task_group
        def embed(manifest_uri):
            start = BedrockStartAsyncInvokeOperator(
                task_id="start",
                model_id="{{ params.model }}",
                manifest_uri=manifest_uri,
                map_index_template="{{ task.batch_name }}",
            )
            start >> BedrockAsyncInvokeSensor(task_id="wait", manifest_uri=manifest_uri)

        embed.expand(manifest_uri=[MANIFEST])
    start = dag.get_task("embed.start")
    start.manifest_uri = MANIFEST  # as it is rendered
    assert start.batch_name == "video-001"


def test_both_can_be_mapped_themselves():
    with DAG("d", schedule=None):
        tasks = [
            BedrockStartAsyncInvokeOperator.partial(task_id="start", model_id=MODEL).expand(manifest_uri=[MANIFEST]),
            BedrockAsyncInvokeSensor.partial(task_id="wait", deferrable=True).expand(manifest_uri=[MANIFEST]),
        ]
    for task in tasks:
        assert task.unmap({"manifest_uri": MANIFEST}).batch_name == "video-001"
