"""S3 and Bedrock on this machine, and the environment that makes every AWS SDK use them."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from local_stack.seaweedfs import REGION, SeaweedFS
from local_stack.simulator import BedrockSimulator

_ACCESS_KEY = "local-stack"


class LocalStack:
    """One SeaweedFS and one Bedrock simulator, with everything they keep below a directory.

    :param directory: created when the stack is started; data and jobs outlive ``stop``.
    :param region: the one that it stands for; several regions are as many stacks.
    """

    def __init__(self, directory: Path, *, region: str = REGION) -> None:
        self.directory = directory.resolve()
        self.region = region
        self.environment_path = self.directory / "stack.env"
        access_key, secret_key = self._credentials()
        self.seaweedfs = SeaweedFS(self.directory / "seaweedfs", access_key, secret_key, region=region)

    @property
    def simulator(self) -> BedrockSimulator:
        """The Bedrock simulator, which reads and writes this stack's S3.

        :raises LocalStackError: if SeaweedFS isn't running.
        """
        return BedrockSimulator(self.directory / "bedrock-simulator", self.seaweedfs.environment, region=self.region)

    @property
    def is_running(self) -> bool:
        """Whether both are running, no matter who started them."""
        return self.seaweedfs.is_running and self.simulator.is_running

    @property
    def environment(self) -> dict[str, str]:
        """What makes every AWS SDK use this stack; holds the secret key.

        :raises LocalStackError: if it isn't running.
        """
        return {**self.seaweedfs.environment, **self.simulator.environment}

    def start(self, *, simulator_settings: Mapping[str, object] | None = None) -> Self:
        """Start what isn't running and write the environment to ``stack.env``.

        :raises LocalStackError: if something does not come up in time.
        """
        self.seaweedfs.start()
        self.simulator.start(settings=simulator_settings)
        self._write_environment()
        return self

    def stop(self) -> None:
        """Stop both, if they run, and remove ``stack.env``."""
        # It needs S3 while it ends; where S3 isn't running any more, any environment will do to stop it.
        BedrockSimulator(self.directory / "bedrock-simulator", {}).stop()
        self.seaweedfs.stop()
        self.environment_path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Start the stack."""
        return self.start()

    def __exit__(self, *exception: object) -> None:
        """Stop the stack."""
        self.stop()

    def _write_environment(self) -> None:
        lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(self.environment.items())]
        # With another account's session token, or a profile, the keys would be refused.
        lines.insert(0, "unset AWS_SESSION_TOKEN AWS_PROFILE")
        self.environment_path.touch(mode=0o600)
        self.environment_path.write_text("\n".join(lines) + "\n")

    def _credentials(self) -> tuple[str, str]:
        path = self.directory / "credentials.json"
        if not path.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(json.dumps({"access_key": _ACCESS_KEY, "secret_key": secrets.token_urlsafe(30)}))
        credentials: dict[str, str] = json.loads(path.read_text())
        return credentials["access_key"], credentials["secret_key"]
