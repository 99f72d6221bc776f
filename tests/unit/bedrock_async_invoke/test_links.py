from __future__ import annotations

import pytest

from bedrock_async_invoke.links import AsyncInvokeOutputLink


def link(output_s3_uri: str | None, **changes: str | None) -> str:
    values = {"region_name": "us-east-1", "aws_domain": "aws.amazon.com", **changes}
    return AsyncInvokeOutputLink().format_link(output_s3_uri=output_s3_uri, **values)


def test_it_leads_to_the_prefix_in_the_console():
    assert link("s3://work/outputs/film one") == (
        "https://console.aws.amazon.com/s3/buckets/work?region=us-east-1&prefix=outputs/film%20one/"
    )


def test_it_leads_to_the_bucket_where_there_is_no_prefix():
    assert link("s3://work") == "https://console.aws.amazon.com/s3/buckets/work?region=us-east-1&prefix="


def test_it_follows_the_partition():
    assert link("s3://work/o", aws_domain="amazonaws.cn").startswith("https://console.amazonaws.cn/")


@pytest.mark.parametrize("output_s3_uri", [None, "", "s3://", "https://work/outputs", "work/outputs"])
def test_without_an_output_there_is_no_link(output_s3_uri):
    assert link(output_s3_uri) == ""
