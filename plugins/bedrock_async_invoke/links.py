"""Links from a task to the AWS console."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from airflow.providers.amazon.aws.links.base_aws import BASE_AWS_CONSOLE_LINK, BaseAwsLink


class AsyncInvokeOutputLink(BaseAwsLink):
    """Helper class for constructing the S3 console link of the prefix that Bedrock writes below."""

    name = "Asynchronous Invocation Output"
    key = "bedrock_async_invoke_output"
    format_str = BASE_AWS_CONSOLE_LINK + "/s3/buckets/{bucket}?region={region_name}&prefix={prefix}"

    def format_link(self, *, output_s3_uri: str | None = None, **kwargs: Any) -> str:
        """Return the link to an output prefix, or nothing for what is no S3 URI."""
        scheme, _, location = (output_s3_uri or "").partition("://")
        bucket, _, prefix = location.partition("/")
        if scheme != "s3" or not bucket:
            return ""
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        return super().format_link(bucket=bucket, prefix=quote(folder, safe="/"), **kwargs)
