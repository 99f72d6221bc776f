"""The simulator as a real process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import boto3
from botocore.config import Config

from bedrock_simulator.admin import SimulatorAdmin
from local_stack.processes import BackgroundProcess, wait_until

INCLUDE = Path(__file__).parents[3] / "include"
# The models of the services are read once for each session, which takes longer than a test.
SESSION = boto3.session.Session()


class Server:
    """One simulator with its state directory; it may be stopped, killed and started again."""

    def __init__(self, directory: Path, s3_environment: dict[str, str], region: str = "us-east-1") -> None:
        self.directory = directory
        self.region = region
        self._s3_environment = s3_environment
        self.process = BackgroundProcess("simulator", directory)

    def start(self, **settings: object) -> Server:
        self.directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "bedrock_simulator", "--state-directory", str(self.directory / "state")]
        command += ["--region", self.region, "--address-file"]
        if settings:
            (self.directory / "settings.json").write_text(json.dumps(settings))
            command += ["--settings", str(self.directory / "settings.json")]
        self.process.start(
            command,
            environment={**self._s3_environment, "PYTHONPATH": str(INCLUDE), "PATH": os.environ["PATH"]},
        )
        self.process.wait_until_ready(self._address_file.exists, seconds=30, what="it listened")
        self.url = self._address_file.read_text()
        self.admin = SimulatorAdmin(self.url)
        return self

    @property
    def _address_file(self) -> Path:
        return self.directory / "state" / "address"

    def stop(self) -> None:
        self.process.stop()

    def kill(self) -> None:
        self.process.kill()
        self._address_file.unlink(missing_ok=True)

    def client(self, region: str | None = None, **config: object):
        config.setdefault("retries", {"total_max_attempts": 1})
        return SESSION.client(
            "bedrock-runtime",
            endpoint_url=self.url,
            region_name=region or self.region,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            config=Config(**config),
        )

    def ended(self, arn: str, seconds: float = 30) -> dict:
        """Return GetAsyncInvoke's answer as soon as the job is no longer in progress."""
        client = self.client()
        answers: list[dict] = []

        def looked() -> bool:
            answers.append(client.get_async_invoke(invocationArn=arn))
            return answers[-1]["status"] != "InProgress"

        wait_until(looked, seconds=seconds, what=f"{arn} ended")
        return answers[-1]
