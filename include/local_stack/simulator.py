"""The stand-in for Amazon Bedrock, as a process that outlives the command that starts it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

import httpx

from local_stack.ports import LOOPBACK, free_port, is_free, without_proxy
from local_stack.processes import BackgroundProcess, LocalStackError
from local_stack.seaweedfs import REGION

_INCLUDE = Path(__file__).resolve().parents[1]


class BedrockSimulator:
    """One Bedrock simulator with everything it keeps below a directory; jobs and charges outlive ``stop``.

    :param directory: created when the simulator is started.
    :param environment: what makes an AWS SDK find S3 (``AWS_ENDPOINT_URL_S3`` and credentials): it reads the media and
        writes the outputs there.
    :param region: the one that it plays.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str], *, region: str = REGION) -> None:
        self.directory = directory
        self.region = region
        self._environment = dict(environment)
        self.process = BackgroundProcess("bedrock-simulator", directory, grace_seconds=15)

    @property
    def is_running(self) -> bool:
        """Whether the simulator of this directory is running, no matter who started it."""
        return self.process.is_running

    @property
    def endpoint_url(self) -> str:
        """The simulator's address.

        :raises LocalStackError: if it isn't running.
        """
        record = self.process.record
        if record is None:
            raise LocalStackError(f"the Bedrock simulator of {self.directory} isn't running")
        return f"http://{LOOPBACK}:{record.details['port']}"

    @property
    def environment(self) -> dict[str, str]:
        """What makes an AWS SDK use this simulator."""
        return {"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": self.endpoint_url}

    def start(self, *, settings: Mapping[str, object] | None = None, seconds: float = 60) -> Self:
        """Start the simulator, and return when it answers; one that runs already only gets the settings.

        :param settings: settings to change, by their names in ``bedrock_simulator.settings.Settings``.
        :raises LocalStackError: if it does not come up in time, or refuses the settings.
        """
        if not self.is_running:
            port = self._port()
            self.process.start(
                [
                    *(sys.executable, "-m", "bedrock_simulator"),
                    *("--host", LOOPBACK, "--port", str(port), "--region", self.region),
                    *("--state-directory", str(self.directory.resolve() / "state")),
                ],
                environment={
                    # Nothing of the person's own AWS account: it only ever talks to the S3 server it is given.
                    **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
                    "PYTHONPATH": str(_INCLUDE),
                    "AWS_EC2_METADATA_DISABLED": "true",
                    **without_proxy(os.environ),
                    **self._environment,
                },
                working_directory=self.directory,
                details={"port": port},
            )
        self.process.wait_until_ready(self._answers, seconds=seconds, what="it answered")
        if settings:
            self._change(settings)
        return self

    def stop(self) -> None:
        """Stop the simulator, if it runs; its jobs and charges stay."""
        self.process.stop()

    def __enter__(self) -> Self:
        """Start the simulator."""
        return self.start()

    def __exit__(self, *exception: object) -> None:
        """Stop the simulator."""
        self.stop()

    def _answers(self) -> bool:
        with suppress(httpx.HTTPError), httpx.Client(trust_env=False, timeout=5) as http:
            return http.get(f"{self.endpoint_url}/simulator/health").is_success
        return False

    def _change(self, settings: Mapping[str, object]) -> None:
        with httpx.Client(trust_env=False, timeout=30) as http:
            answer = http.put(f"{self.endpoint_url}/simulator/settings", json=dict(settings))
        if not answer.is_success:
            raise LocalStackError(f"the Bedrock simulator refused the settings {dict(settings)}: {answer.text[:500]}")

    def _port(self) -> int:
        """Return the port of the last start if it is still free, else a new one."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "port.json"
        with suppress(FileNotFoundError, json.JSONDecodeError):
            port: int = json.loads(path.read_text())
            if is_free(port):
                return port
        port = free_port()
        path.write_text(f"{port}\n")
        return port
