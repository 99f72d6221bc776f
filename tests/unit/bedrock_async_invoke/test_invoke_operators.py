from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from bedrock_async_invoke import invoke_operators
from bedrock_async_invoke.hooks import BedrockAsyncInvokeHook
from bedrock_async_invoke.invoke_operators import BedrockInvokeModelBatchOperator
from tests.unit.bedrock_async_invoke.fake_aws import FOLDER, MANIFEST, FakeRuntime, refusal, request

PROFILE = "us.twelvelabs.marengo-embed-3-0-v1:0"
AWS = {"aws_conn_id": None, "region_name": "us-east-1", "verify": False, "botocore_config": {"read_timeout": 9}}


class TaskInstance(SimpleNamespace):
    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed = {**getattr(self, "pushed", {}), key: value}


@pytest.fixture
def context():
    return {"ti": TaskInstance(dag_id="d", run_id="r", task_id="t", map_index=-1)}


@pytest.fixture(scope="module")
def hook():
    return BedrockAsyncInvokeHook(aws_conn_id=None, region_name="us-east-1")


@pytest.fixture
def runtime(clock, hook, monkeypatch) -> FakeRuntime:
    class Entered(FakeRuntime):
        made_with: dict[str, Any]

        async def __aenter__(self):
            return self

        async def __aexit__(self, *_: object) -> None: ...

    runtime = Entered(clock)
    runtime.seconds = 0.0

    def made(hook, **arguments):
        runtime.made_with = arguments
        return runtime

    monkeypatch.setattr(invoke_operators, "BedrockRuntime", made)
    monkeypatch.setattr(BedrockInvokeModelBatchOperator, "hook", hook)
    return runtime


def operator(**arguments: Any) -> BedrockInvokeModelBatchOperator:
    return BedrockInvokeModelBatchOperator(
        task_id="invoke", **{**AWS, "model_id": PROFILE, "manifest_uri": MANIFEST, **arguments}
    )


def test_the_requests_of_a_manifest_are_sent_and_counted(clients, runtime, context):
    clients.put_requests(*[request(number, model_input={"name": f"{number}"}) for number in range(3)])
    runtime.errors["2"] = refusal("ValidationException", "no")
    summary = operator(max_concurrent_invokes=7, call_timeout=33.0).execute(context)
    assert (summary["requests"], summary["started"], summary["refused"]) == (3, 2, 1)
    assert summary["invocations_uri"] == f"{FOLDER}/invocations.jsonl"
    assert runtime.made_with == {"at_once": 7, "call_seconds": 33.0}
    assert clients.parameters.as_dict() == AWS
    assert context["ti"].pushed["bedrock_async_invoke_output"]["output_s3_uri"] == "s3://work/outputs"


def test_without_a_manifest_it_fails_and_says_so(clients, runtime, context):
    with pytest.raises(AirflowException, match=f"There is no manifest {MANIFEST}"):
        operator().execute(context)


def test_a_batch_is_known_by_its_folder():
    assert operator().batch_name == "video-001"


@pytest.mark.parametrize(("argument", "value"), [("max_concurrent_invokes", 0), ("call_timeout", 0)])
def test_what_makes_no_sense_is_refused(argument, value):
    with pytest.raises(ValueError, match=argument):
        operator(**{argument: value})


def test_it_is_templated_as_its_sibling_is():
    assert {"model_id", "manifest_uri", "intents_uri", "aws_conn_id", "region_name"} <= set(
        BedrockInvokeModelBatchOperator.template_fields
    )


def test_killed_before_it_began_it_has_nothing_to_stop():
    operator().on_kill()


async def test_the_client_makes_every_call_once_and_as_many_side_by_side_as_are_asked_for(hook):
    async with hook.invoke_model_client(at_once=33, read_seconds=44.0) as client:
        config = client.meta.config
    assert config.retries["total_max_attempts"] == 1
    assert (config.max_pool_connections, config.read_timeout) == (33, 44.0)
