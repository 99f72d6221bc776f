"""Requests are checked against botocore's own service model."""

from __future__ import annotations

from datetime import UTC, datetime

import botocore.loaders
import pytest

from bedrock_simulator.errors import HTTP_STATUSES, BedrockError
from bedrock_simulator.service_model import validate

VALID = {
    "modelId": "twelvelabs.marengo-embed-3-0-v1:0",
    "modelInput": {"inputType": "text"},
    "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://bucket/outputs"}},
}


def test_a_valid_request_passes():
    key = "arn:aws:kms:us-east-1:123456789012:alias/my-key"
    output = {"s3Uri": "s3://bucket", "kmsKeyId": key, "bucketOwner": "123456789012"}
    tags = [{"key": "team", "value": ""}]
    validate("StartAsyncInvoke", {**VALID, "outputDataConfig": {"s3OutputDataConfig": output}, "tags": tags})
    validate("ListAsyncInvokes", {"submitTimeAfter": datetime.now(UTC), "maxResults": 1000, "sortOrder": "Ascending"})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"modelId": None}, "'modelId' failed to satisfy constraint: Member must not be null"),
        ({"modelId": 3}, "must be a string"),
        ({"modelInput": "{}"}, "'modelInput'.*JSON object"),
        ({"outputDataConfig": {}}, "Exactly one of s3OutputDataConfig"),
        ({"outputDataConfig": {"s3OutputDataConfig": {}}}, "s3Uri'.*null"),
        ({"outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://B/x"}}}, "pattern"),
        ({"outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://bucket/" + "x" * 1024}}}, "1024"),
        ({"tags": [{"key": "k", "value": "v"}] * 201}, "less than or equal to 200"),
        ({"tags": {"k": "v"}}, "must be a list"),
        ({"clientRequestToken": ""}, "greater than or equal to 1"),
        ({"extra": 1}, "'extra'.*not known"),
    ],
)
def test_a_request_that_breaks_the_model_is_refused(changes, problem):
    with pytest.raises(BedrockError, match=problem):
        validate("StartAsyncInvoke", {**VALID, **changes})


def test_every_violation_is_named():
    with pytest.raises(BedrockError, match=r"2 validation errors detected: .*modelId.*; .*extra"):
        validate("StartAsyncInvoke", {**VALID, "modelId": "", "extra": 1} | {"modelId": None})


@pytest.mark.parametrize("value", [0, 1001, True, "5"])
def test_max_results_is_one_to_a_thousand(value):
    with pytest.raises(BedrockError, match="'maxResults'"):
        validate("ListAsyncInvokes", {"maxResults": value})


def test_the_statuses_of_errors_are_those_of_the_service_model():
    shapes = botocore.loaders.Loader().load_service_model("bedrock-runtime", "service-2")["shapes"]
    modelled = {
        name: shape["error"]["httpStatusCode"]
        for name, shape in shapes.items()
        if shape.get("exception") and "error" in shape and name in HTTP_STATUSES
    }
    assert len(modelled) >= 10
    assert modelled == {name: HTTP_STATUSES[name] for name in modelled}
