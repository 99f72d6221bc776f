"""InvokeModel for each request of a manifest, against a real S3 server and the Bedrock simulator, over the wire."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from bedrock_async_invoke.invoke_operators import BedrockInvokeModelBatchOperator
from bedrock_async_invoke.manifest import invoke_id
from local_stack.processes import wait_until
from tests.integration.bedrock_async_invoke.conftest import AWS, MODEL
from tests.integration.bedrock_async_invoke.test_against_the_simulator import operator as start_operator

ROOT = Path(__file__).parents[3]
PROFILE = f"us.{MODEL}"


class TaskInstance(SimpleNamespace):
    def xcom_push(self, key: str, value: Any) -> None: ...


CONTEXT = {"ti": TaskInstance(dag_id="d", run_id="r", task_id="t", map_index=-1)}


def operator(batch, **arguments) -> BedrockInvokeModelBatchOperator:
    defaults = {
        "model_id": PROFILE,
        "manifest_uri": batch.manifest_uri,
        "intents_uri": f"s3://{batch.bucket}/tables/intents",
        # The simulator's first answer takes seconds on a busy machine.
        "call_timeout": 20.0,
    }
    return BedrockInvokeModelBatchOperator(task_id="invoke", **{**AWS, **defaults, **arguments})


def paid(simulator, batch) -> list[str]:
    """Return the key of each picture of the batch that was paid for."""
    return sorted(
        str(one["source"]).removeprefix(f"s3://{batch.bucket}/")
        for one in simulator.charges()
        if one["operation"] == "InvokeModel" and str(one["source"]).startswith(f"s3://{batch.bucket}/")
    )


def answer(batch, number: int) -> dict[str, Any]:
    token = batch.token(number)
    key = f"work/outputs/{token}/{invoke_id(token)}/output.json"
    return json.loads(batch.s3.get_object(Bucket=batch.bucket, Key=key)["Body"].read())


def test_a_batch_goes_through_with_bad_objects_failing_alone(batch, simulator):
    pictures = batch(6)
    pictures.s3.delete_object(Bucket=pictures.bucket, Key=pictures.key(0))
    pictures.s3.put_object(Bucket=pictures.bucket, Key=pictures.key(1), Body=b"another picture")
    simulator.faults(
        {"kind": "error", "code": "ValidationException", "operation": "InvokeModel", "source": pictures.uri(2)},
        # The service's own errors, and throttling, refuse nothing.
        {"kind": "error", "code": "InternalServerException", "source": pictures.uri(3), "count": 2},
        {"kind": "error", "code": "ThrottlingException", "source": pictures.uri(4), "count": 2, "retry_after": 1},
    )
    summary = operator(pictures).execute(CONTEXT)

    assert (summary["started"], summary["refused"], summary["lost_answers"]) == (3, 3, 0)
    invocations = pictures.lines("invocations.jsonl")
    assert [invocations[number]["error_code"] for number in range(4)] == [
        "SourceNotFound",
        "SourceChanged",
        "ValidationException",
        None,
    ]
    statuses = pictures.lines("statuses.jsonl")
    assert set(statuses) == {3, 4, 5}
    for number, line in statuses.items():
        assert line["status"] == "Completed"
        assert line["invocation_arn"] == f"arn:aws:bedrock:us-east-1::invoke-model/{invoke_id(pictures.token(number))}"
        assert len(answer(pictures, number)["data"][0]["embedding"]) == 1024
    assert paid(simulator, pictures) == [pictures.key(number) for number in (3, 4, 5)]


def test_no_call_is_repeated_behind_the_operators_back(batch, simulator):
    pictures = batch(1)
    simulator.faults({"kind": "error", "operation": "InvokeModel", "code": "ServiceUnavailableException", "count": 1})
    before = simulator.calls().get("InvokeModel", {})
    operator(pictures).execute(CONTEXT)
    after = simulator.calls()["InvokeModel"]
    assert after["ServiceUnavailableException"] == before.get("ServiceUnavailableException", 0) + 1
    assert after[""] == before.get("", 0) + 1


def test_a_quota_slows_down_and_refuses_nothing(batch, simulator):
    simulator.settings(invokes_per_second=4)
    pictures = batch(16)
    assert operator(pictures).execute(CONTEXT)["started"] == 16
    assert len(paid(simulator, pictures)) == 16


@pytest.mark.parametrize("kind", ["lost_response", "connection_reset"])
def test_a_connection_that_breaks_is_counted_and_only_that_request_is_sent_again(batch, simulator, kind):
    pictures = batch(5)
    simulator.faults({"kind": kind, "operation": "InvokeModel", "source": pictures.uri(2), "count": 1})
    summary = operator(pictures).execute(CONTEXT)
    assert (summary["started"], summary["lost_answers"]) == (5, 1)
    charged = paid(simulator, pictures)
    assert charged.count(pictures.key(2)) == (2 if kind == "lost_response" else 1)
    assert len(charged) - charged.count(pictures.key(2)) == 4


def test_contents_reach_the_model_with_the_request(batch, simulator):
    pictures = batch(2)
    operator(pictures).execute(CONTEXT)
    expected = answer(pictures, 0)
    again = batch(2)
    key = again.manifest_uri.removeprefix(f"s3://{again.bucket}/")
    lines = [json.loads(line) for line in again.s3.get_object(Bucket=again.bucket, Key=key)["Body"].read().splitlines()]
    for line in lines:
        line["model_input"] = {"inputType": "image", "mediaSource": {"base64String": ""}}
        line["content_member"] = ["mediaSource", "base64String"]
    again.s3.put_object(Bucket=again.bucket, Key=key, Body="\n".join(map(json.dumps, lines)).encode())
    assert operator(again).execute(CONTEXT)["started"] == 2
    assert answer(again, 0) == expected


RUN = """
import sys
from types import SimpleNamespace
from bedrock_async_invoke.invoke_operators import BedrockInvokeModelBatchOperator

class TaskInstance(SimpleNamespace):
    def xcom_push(self, key, value): ...

BedrockInvokeModelBatchOperator(
    task_id="invoke", aws_conn_id=None, region_name="us-east-1", model_id=sys.argv[1], manifest_uri=sys.argv[2],
    intents_uri=sys.argv[3], call_timeout=5.0, max_concurrent_invokes=4,
).execute({"ti": TaskInstance(dag_id="d", run_id="r", task_id="t", map_index=-1)})
"""


def test_a_process_that_is_killed_in_the_middle_is_gone_on_with(batch, simulator, tmp_path):
    simulator.settings(invokes_per_second=6)
    pictures = batch(24)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'include'}:{ROOT / 'plugins'}", "AIRFLOW_HOME": str(tmp_path)}
    command = [sys.executable, "-c", RUN, PROFILE, pictures.manifest_uri, f"s3://{pictures.bucket}/tables/intents"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(paid(simulator, pictures)) >= 10, seconds=120, what="ten pictures were paid for")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = len(paid(simulator, pictures))
    assert before < 24

    summary = operator(pictures, max_concurrent_invokes=4, call_timeout=5.0).execute(CONTEXT)
    assert summary["started"] + summary["adopted"] == 24
    assert summary["adopted"] >= 6
    assert summary["lost_answers"] <= 4
    charged = paid(simulator, pictures)
    assert set(charged) == {pictures.key(number) for number in range(24)}
    assert len(charged) <= 24 + summary["lost_answers"]


def test_two_at_the_same_moment_pay_once(batch, simulator):
    pictures = batch(12)
    summaries: list[dict[str, Any]] = []
    # Each has a folder of its own, as two runs have; requests, and so intents and outputs, are the same.
    other = pictures.manifest_uri.replace("/runs/r/", "/runs/another/")
    bucket, prefix = pictures.bucket, f"s3://{pictures.bucket}/"
    pictures.s3.copy_object(
        Bucket=bucket,
        Key=other.removeprefix(prefix),
        CopySource={"Bucket": bucket, "Key": pictures.manifest_uri.removeprefix(prefix)},
    )

    def run(manifest_uri: str) -> None:
        summaries.append(operator(pictures, manifest_uri=manifest_uri).execute(CONTEXT))

    threads = [threading.Thread(target=run, args=(uri,)) for uri in (pictures.manifest_uri, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(summaries) == 2
    assert paid(simulator, pictures) == sorted(pictures.key(number) for number in range(12))
    assert sum(one["started"] for one in summaries) == 12
    assert all(one["started"] + one["adopted"] == 12 for one in summaries)


def test_told_to_stop_it_keeps_what_is_under_way(batch, simulator):
    simulator.settings(invokes_per_second=5)
    pictures = batch(20)
    task = operator(pictures, max_concurrent_invokes=3)

    def stop() -> None:
        wait_until(lambda: len(paid(simulator, pictures)) >= 6, seconds=60, what="six pictures were paid for")
        task.on_kill()

    stopping = threading.Thread(target=stop)
    stopping.start()
    with pytest.raises(AirflowException, match="Invoking was stopped"):
        task.execute(CONTEXT)
    stopping.join()
    kept = len(pictures.lines("statuses.jsonl"))
    assert kept == len(paid(simulator, pictures)) < 20
    simulator.settings(invokes_per_second=None)
    assert operator(pictures).execute(CONTEXT)["started"] == 20
    assert len(paid(simulator, pictures)) == 20


def test_what_was_started_as_a_job_is_adopted_and_what_was_sent_at_once_is_reused_by_a_start(batch, simulator):
    pictures = batch(2)
    intents = f"s3://{pictures.bucket}/tables/intents"
    lease = {"intents_uri": intents, "submitter_uri": f"s3://{pictures.bucket}/tables/submitter"}
    start_operator(pictures, **lease).execute(CONTEXT)
    prefix = "work/runs/r/batches/image-001/"
    pictures.s3.delete_object(Bucket=pictures.bucket, Key=f"{prefix}invocations.jsonl")
    assert operator(pictures).execute(CONTEXT)["adopted"] == 2
    assert paid(simulator, pictures) == []

    others = batch(2)
    intents = f"s3://{others.bucket}/tables/intents"
    operator(others).execute(CONTEXT)
    others.s3.delete_object(Bucket=others.bucket, Key=f"{prefix}invocations.jsonl")
    lease = {"intents_uri": intents, "submitter_uri": f"s3://{others.bucket}/tables/submitter"}
    assert start_operator(others, **lease).execute(CONTEXT)["reused"] == 2
