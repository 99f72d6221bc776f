"""What an unmodified AWS SDK sees."""

from __future__ import annotations

import json
import re

import aiobotocore.session
import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.integration.bedrock_simulator.requests import MARENGO_27, MARENGO_30, marengo_27, marengo_30, start_request

TEXT = {"inputType": "text", "inputText": "a red sunset"}


def error_of(call, **arguments) -> tuple[str, int, str]:
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    response = raised.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Message"]


def test_boto3_starts_gets_and_lists_a_job(server, read_output):
    client = server.client()
    token = "token-of-the-first-job"
    request = start_request(marengo_27("image", "red.png"), uri="s3://media/outputs/first/", clientRequestToken=token)
    arn = client.start_async_invoke(**request)["invocationArn"]
    assert re.fullmatch(r"arn:aws:bedrock:us-east-1:123456789012:async-invoke/[a-z0-9]{12}", arn)

    answer = server.ended(arn)
    assert answer["status"] == "Completed"
    assert answer["modelArn"] == f"arn:aws:bedrock:us-east-1::foundation-model/{MARENGO_27}"
    assert answer["clientRequestToken"] == token
    assert answer["submitTime"] <= answer["endTime"]
    invocation_id = arn.rpartition("/")[2]
    assert answer["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"] == f"s3://media/outputs/first/{invocation_id}"
    (row,) = read_output(answer)
    assert len(row["embedding"]) == 1024

    summary = client.list_async_invokes(maxResults=1)["asyncInvokeSummaries"][0]
    assert summary == {name: value for name, value in answer.items() if name != "ResponseMetadata"}


async def test_aiobotocore_starts_gets_lists_and_invokes(server):
    session = aiobotocore.session.get_session()
    async with session.create_client(
        "bedrock-runtime",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    ) as client:
        started = await client.start_async_invoke(**start_request(TEXT))
        arn = started["invocationArn"]
        server.ended(arn)
        assert (await client.get_async_invoke(invocationArn=arn))["status"] == "Completed"
        pages = client.get_paginator("list_async_invokes").paginate(PaginationConfig={"PageSize": 1, "MaxItems": 3})
        arns = [summary["invocationArn"] async for page in pages for summary in page["asyncInvokeSummaries"]]
        assert arn in arns
        answer = await client.invoke_model(modelId=f"us.{MARENGO_27}", body=json.dumps(TEXT))
        assert len(json.loads(await answer["body"].read())["data"][0]["embedding"]) == 1024
        with pytest.raises(ClientError, match="doesn't support async inference"):
            await client.start_async_invoke(**start_request(TEXT, f"us.{MARENGO_27}"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clientRequestToken": "with a space"}, "'clientRequestToken' failed to satisfy constraint.*pattern"),
        ({"clientRequestToken": "t" * 257}, "'clientRequestToken'.*length less than or equal to 256"),
        ({"modelId": "no spaces!"}, "'modelId'.*pattern"),
        ({"tags": [{"key": "k#", "value": "v"}]}, r"'tags\.1\.member\.key'.*pattern"),
        ({"outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "http://media/out"}}}, "s3Uri'.*pattern"),
        (
            {"outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://media/o", "kmsKeyId": "an-id"}}},
            "kmsKeyId'.*pattern",
        ),
        (
            {"outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://media/o", "bucketOwner": "12"}}},
            "bucketOwner'.*pattern",
        ),
    ],
)
def test_what_botocore_leaves_to_the_server_is_refused(server, changes, words):
    code, status, message = error_of(server.client().start_async_invoke, **{**start_request(TEXT), **changes})
    assert (code, status) == ("ValidationException", 400)
    assert re.search(words, message)


@pytest.mark.parametrize("model_id", [f"us.{MARENGO_27}", f"eu.{MARENGO_30}"])
def test_start_takes_no_inference_profile(server, model_id):
    call = server.client().start_async_invoke
    assert error_of(call, **start_request(TEXT, model_id)) == (
        "ValidationException",
        400,
        "The provided model doesn't support async inference.",
    )


def test_start_takes_a_foundation_model_arn(server):
    arn = f"arn:aws:bedrock:us-east-1::foundation-model/{MARENGO_27}"
    started = server.client().start_async_invoke(**start_request(TEXT, arn))
    assert server.ended(started["invocationArn"])["modelArn"] == arn


def test_errors_carry_their_type_in_a_header(server):
    client = server.client()
    headers: list = []
    client.meta.events.register("needs-retry", lambda response, **_: headers.append(response[0].headers) or None)
    with pytest.raises(client.exceptions.ValidationException):
        client.start_async_invoke(**start_request(TEXT, "nobody.knows-v1:0"))
    assert headers[0]["x-amzn-ErrorType"].split(":")[0] == "ValidationException"
    assert headers[0]["x-amzn-RequestId"]


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://media/nothing-here.mp4", "s3://media/nothing-here.mp4 does not exist"),
        ("s3://no-such-bucket/a.mp4", "s3://no-such-bucket/a.mp4 does not exist"),
        ("s3://media/empty.mp4", "is empty"),
    ],
)
def test_an_input_that_is_not_there_is_refused(server, uri, words):
    model_input = {"inputType": "video", "mediaSource": {"s3Location": {"uri": uri}}}
    code, _, message = error_of(server.client().start_async_invoke, **start_request(model_input))
    assert code == "ValidationException"
    assert words in message


def test_an_output_bucket_that_does_not_exist_is_refused(server):
    call = server.client().start_async_invoke
    code, _, message = error_of(call, **start_request(TEXT, uri="s3://no-such-bucket/outputs"))
    assert code == "ValidationException"
    assert "no-such-bucket" in message


def test_buckets_must_be_in_the_models_region(server):
    server.admin.settings(bucket_regions={"elsewhere": "eu-west-1"})
    call = server.client().start_async_invoke
    code, _, message = error_of(call, **start_request(TEXT, uri="s3://elsewhere/outputs"))
    assert (code, "elsewhere is in eu-west-1" in message) == ("ValidationException", True)
    model_input = {"inputType": "image", "mediaSource": {"s3Location": {"uri": "s3://elsewhere/red.png"}}}
    assert error_of(call, **start_request(model_input))[0] == "ValidationException"


def test_a_bucket_of_another_account_is_refused(server):
    model_input = marengo_27("image", "red.png")
    model_input["mediaSource"]["s3Location"]["bucketOwner"] = "999999999999"
    code, _, message = error_of(server.client().start_async_invoke, **start_request(model_input))
    assert (code, "999999999999" in message) == ("ValidationException", True)
    server.admin.settings(bucket_owners={"media": "999999999999"})
    assert server.client().start_async_invoke(**start_request(model_input))["invocationArn"]


def test_the_same_token_with_the_same_body_gives_the_same_job(server):
    client = server.client()
    request = start_request(TEXT, clientRequestToken="idempotent-1")
    arns = {client.start_async_invoke(**request)["invocationArn"] for _ in range(3)}
    assert len(arns) == 1
    assert [charge["token"] for charge in server.admin.charges()].count("idempotent-1") == 1
    other = start_request({"inputType": "text", "inputText": "another"}, clientRequestToken="idempotent-1")
    code, status, _ = error_of(client.start_async_invoke, **other)
    assert (code, status) == ("ConflictException", 400)


def test_a_token_is_forgotten_after_its_lifetime(server):
    server.admin.settings(token_lifetime_seconds=60)
    request = start_request(TEXT, clientRequestToken="short-lived")
    client = server.client()
    first = client.start_async_invoke(**request)["invocationArn"]
    assert client.start_async_invoke(**request)["invocationArn"] == first
    server.admin.advance_clock(61)
    assert client.start_async_invoke(**request)["invocationArn"] != first


@pytest.mark.parametrize("code", ["ThrottlingException", "ServiceQuotaExceededException"])
def test_only_so_many_jobs_are_in_flight(new_server, code):
    # So long that the jobs are in flight until the clock is put forward.
    server = new_server().start(seconds_per_job=3600, max_in_flight=2, quota_error=code)
    client = server.client()
    arns = [client.start_async_invoke(**start_request(TEXT))["invocationArn"] for _ in range(2)]
    assert error_of(client.start_async_invoke, **start_request(TEXT))[0] == code
    assert client.start_async_invoke(
        **start_request({"inputType": "text", "text": {"inputText": "other models have a quota of their own"}})
    )
    server.admin.advance_clock(3601)
    for arn in arns:
        assert server.ended(arn)["status"] == "Completed"
    assert client.start_async_invoke(**start_request(TEXT))["invocationArn"]
    server.admin.advance_clock(3601)


def test_an_unknown_invocation_is_refused(server):
    arn = "arn:aws:bedrock:us-east-1:123456789012:async-invoke/000000000000"
    client = server.client()
    assert error_of(client.get_async_invoke, invocationArn=arn)[:2] == ("ValidationException", 400)
    server.admin.settings(unknown_invocation="ResourceNotFoundException")
    assert error_of(client.get_async_invoke, invocationArn=arn)[:2] == ("ResourceNotFoundException", 404)
    assert error_of(client.get_async_invoke, invocationArn="not-an-arn")[0] == "ValidationException"


def test_lists_are_filtered_sorted_and_paged(new_server):
    server = new_server().start(seconds_per_job=0, max_in_flight=100)
    client = server.client()
    arns = []
    for _ in range(7):
        arns.append(client.start_async_invoke(**start_request(TEXT))["invocationArn"])
        server.admin.advance_clock(10)
    for arn in arns:
        server.ended(arn)
    stuck = {"kind": "stuck"}
    server.admin.faults(stuck)
    last = client.start_async_invoke(**start_request(TEXT))["invocationArn"]

    def listed(**arguments) -> list[str]:
        pages = client.get_paginator("list_async_invokes").paginate(**arguments, PaginationConfig={"PageSize": 3})
        return [summary["invocationArn"] for page in pages for summary in page["asyncInvokeSummaries"]]

    assert listed() == [last, *reversed(arns)]
    assert listed(sortOrder="Ascending", sortBy="SubmissionTime") == [*arns, last]
    assert listed(statusEquals="InProgress") == [last]
    assert listed(statusEquals="Completed", sortOrder="Ascending") == arns
    assert listed(statusEquals="Failed") == []
    third = client.get_async_invoke(invocationArn=arns[2])["submitTime"]
    fifth = client.get_async_invoke(invocationArn=arns[4])["submitTime"]
    assert listed(submitTimeAfter=third, submitTimeBefore=fifth) == [arns[3]]
    assert listed(submitTimeAfter=fifth) == [last, arns[6], arns[5]]
    server.admin.settings(list_delay_seconds=5)
    assert listed(submitTimeAfter=fifth) == [arns[6], arns[5]]


@pytest.mark.parametrize(
    "arguments",
    [{"maxResults": 1001}, {"statusEquals": "Done"}, {"sortOrder": "Up"}, {"nextToken": "made-up"}],
)
def test_a_list_with_wrong_parameters_is_refused(server, arguments):
    assert error_of(server.client().list_async_invokes, **arguments)[:2] == ("ValidationException", 400)


def test_a_next_token_belongs_to_its_filters(server):
    client = server.client()
    for _ in range(2):
        client.start_async_invoke(**start_request(TEXT))
    token = client.list_async_invokes(maxResults=1)["nextToken"]
    assert error_of(client.list_async_invokes, nextToken=token, statusEquals="Failed")[0] == "ValidationException"


@pytest.mark.parametrize(
    ("region", "model_id", "accepted"),
    [
        ("us-east-1", f"us.{MARENGO_27}", True),
        ("us-east-1", MARENGO_27, False),
        ("us-east-1", MARENGO_30, True),
        ("us-east-1", f"us.{MARENGO_30}", True),
        ("us-east-1", f"eu.{MARENGO_30}", False),
        ("eu-west-1", f"eu.{MARENGO_30}", True),
        ("eu-west-1", MARENGO_30, False),
        ("eu-west-1", f"arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.{MARENGO_30}", True),
        ("ap-northeast-2", MARENGO_30, True),
        ("ap-northeast-2", f"us.{MARENGO_30}", False),
        ("ap-northeast-2", f"us.{MARENGO_27}", False),
        ("us-west-2", MARENGO_30, False),
    ],
)
def test_invoke_model_takes_the_ids_of_its_region(regional_servers, region, model_id, accepted):
    client = regional_servers(region).client()
    text = {"inputType": "text", "text": {"inputText": "x"}} if "3-0" in model_id else TEXT
    if accepted:
        answer = json.loads(client.invoke_model(modelId=model_id, body=json.dumps(text))["body"].read())
        assert len(answer["data"]) == 1
    else:
        assert error_of(client.invoke_model, modelId=model_id, body=json.dumps(text))[0] == "ValidationException"


def test_invoke_model_refuses_what_only_async_takes(server):
    client = server.client()
    body = json.dumps(marengo_30("video", "shots.mp4"))
    assert "StartAsyncInvoke" in error_of(client.invoke_model, modelId=MARENGO_30, body=body)[2]
    assert "not valid JSON" in error_of(client.invoke_model, modelId=MARENGO_30, body=b"{")[2]


def test_invoke_model_refuses_a_body_over_25_megabytes(server):
    client = server.client()
    code, _, message = error_of(client.invoke_model, modelId=MARENGO_30, body=b" " * 25_000_001)
    assert (code, "25000000" in message) == ("ValidationException", True)


def test_invoke_model_is_throttled_above_its_rate(server):
    # So slow that nothing is filled up while the test runs.
    server.admin.settings(invokes_per_second=0.001)
    client = server.client()
    client.invoke_model(modelId=f"us.{MARENGO_27}", body=json.dumps(TEXT))
    assert error_of(client.invoke_model, modelId=f"us.{MARENGO_27}", body=json.dumps(TEXT))[:2] == (
        "ThrottlingException",
        429,
    )
    server.admin.advance_clock(1000)
    client.invoke_model(modelId=f"us.{MARENGO_27}", body=json.dumps(TEXT))


def test_a_request_signed_for_another_region_is_refused(server):
    call = server.client(region="eu-west-1").list_async_invokes
    assert error_of(call)[:2] == ("InvalidSignatureException", 403)


def test_a_request_without_credentials_is_refused(server):
    from botocore import UNSIGNED

    client = boto3.session.Session().client(
        "bedrock-runtime",
        endpoint_url=server.url,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}),
    )
    assert error_of(client.list_async_invokes)[:2] == ("MissingAuthenticationTokenException", 403)


def test_a_model_is_gone_after_its_end_of_life_if_that_is_enforced(new_server):
    server = new_server().start(enforce_end_of_life=True)
    server.admin.advance_clock(86_400 * 365 * 5)
    call = server.client().start_async_invoke
    assert error_of(call, **start_request(TEXT))[:2] == ("ResourceNotFoundException", 404)
