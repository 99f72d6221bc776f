from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Airflow reads its home when it is imported, so this comes before anything that imports it.
_HOME = tempfile.TemporaryDirectory(prefix="airflow-home-")
os.environ.setdefault("AIRFLOW_HOME", _HOME.name)

import pytest  # noqa: E402

from bedrock_async_invoke.clients import AwsParameters, Clients  # noqa: E402
from bedrock_simulator.admin import SimulatorAdmin  # noqa: E402
from tests.integration.bedrock_simulator import media_files  # noqa: E402
from tests.integration.bedrock_simulator.requests import MARENGO_27, marengo_27  # noqa: E402

MODEL = MARENGO_27
AWS = {"aws_conn_id": None, "region_name": "us-east-1"}


@dataclass
class Batch:
    """A manifest of pictures in a bucket of its own."""

    s3: Any
    bucket: str
    manifest_uri: str

    def key(self, number: int) -> str:
        return f"library/what? picture #{number}.png"

    def uri(self, number: int) -> str:
        return f"s3://{self.bucket}/{self.key(number)}"

    def lines(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the lines of a file beside the manifest by the number of the picture."""
        prefix = self.manifest_uri.removeprefix(f"s3://{self.bucket}/").rpartition("/")[0]
        content = self.s3.get_object(Bucket=self.bucket, Key=f"{prefix}/{name}")["Body"].read()
        return {int(line["request_id"].rpartition("-")[2]): line for line in map(json.loads, content.splitlines())}

    def token(self, number: int) -> str:
        return f"{self.bucket}-{number}"


@pytest.fixture
def batch(stack) -> Callable[[int], Batch]:
    s3 = stack.seaweedfs.client()

    def batch(count: int) -> Batch:
        name = f"batch-{uuid.uuid4().hex[:12]}"
        stack.seaweedfs.create_buckets(name)
        made = Batch(s3, name, f"s3://{name}/work/runs/r/batches/image-001/requests.jsonl")
        lines = []
        for number in range(count):
            put = s3.put_object(Bucket=name, Key=made.key(number), Body=media_files.image(media_files.RED))
            line = {
                "request_id": made.token(number),
                "model_input": marengo_27("image", made.key(number)),
                "output_uri": f"s3://{name}/work/outputs/{made.token(number)}",
                "source_uri": made.uri(number),
                "source_etag": put["ETag"].strip('"'),
            }
            line["model_input"]["mediaSource"]["s3Location"]["uri"] = made.uri(number)
            lines.append(json.dumps(line))
        s3.put_object(Bucket=name, Key="work/runs/r/batches/image-001/requests.jsonl", Body="\n".join(lines).encode())
        return made

    return batch


@pytest.fixture
def clients(stack) -> Clients:
    return Clients(AwsParameters(**AWS))


def accepted(simulator: SimulatorAdmin, batch: Batch) -> list[int]:
    """Return the picture of each invocation of the batch that Bedrock has accepted, and so is paid for."""
    tokens = [charge["token"] or "" for charge in simulator.charges()]
    return sorted(int(token.rpartition("-")[2]) for token in tokens if token.startswith(f"{batch.bucket}-"))
