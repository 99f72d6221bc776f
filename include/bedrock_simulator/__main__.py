"""Starts the simulator: ``python -m bedrock_simulator --state-directory DIR``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from .application import application
from .connections import BreakableProtocol
from .settings import Settings
from .simulator import Simulator

STOP_SECONDS = 10


class AnnouncingServer(uvicorn.Server):
    """Says where it listens as soon as it does."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then announce."""
        await super().startup(sockets=sockets)
        if self.started:
            self._announce()


def parsed_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m bedrock_simulator",
        description="A local stand-in for Amazon Bedrock's async invoke with TwelveLabs Marengo. S3 is the server that "
        "AWS_ENDPOINT_URL_S3 names.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="the port; 0 takes a free one (default %(default)s)")
    parser.add_argument("--state-directory", type=Path, required=True, help="where jobs, charges and settings are kept")
    parser.add_argument("--region", default="us-east-1", help="the region it plays (default %(default)s)")
    parser.add_argument(
        "--settings", type=Path, help="a JSON file of settings; without it those of the last run, or the defaults, hold"
    )
    parser.add_argument("--workers", type=int, default=4, help="threads that work the jobs (default %(default)s)")
    parser.add_argument("--address-file", action="store_true", help="write the address to STATE_DIRECTORY/address")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    options = parsed_arguments(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if not any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")):
        print(
            "AWS_ENDPOINT_URL_S3 must name an S3 server: the simulator does not go to AWS by accident.", file=sys.stderr
        )
        return 2
    try:
        settings = Settings().changed(json.loads(options.settings.read_text())) if options.settings else None
    except (OSError, ValueError) as error:
        print(f"The settings in {options.settings} can't be used: {error}", file=sys.stderr)
        return 2
    try:
        simulator = Simulator(options.state_directory, options.region, settings, options.workers)
    except sqlite3.OperationalError as error:
        print(f"{options.state_directory} can't be used, or another simulator uses it: {error}", file=sys.stderr)
        return 2

    # Only a socket with its protocol named gets TCP_NODELAY from asyncio; without it each answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((options.host, options.port))
    address = f"http://{options.host}:{listener.getsockname()[1]}"
    address_file: Path = options.state_directory / "address"

    def announce() -> None:
        if options.address_file:
            # Whoever waits for the file must never read half of it.
            unfinished = address_file.with_suffix(".new")
            unfinished.write_text(address)
            unfinished.replace(address_file)
        print(f"listening on {address}", flush=True)

    config = uvicorn.Config(
        application(simulator),
        http=BreakableProtocol,
        loop="asyncio",
        lifespan="on",
        ws="none",
        log_level=os.environ.get("BEDROCK_SIMULATOR_LOG_LEVEL", "warning"),
        access_log=False,
        server_header=False,
        backlog=2048,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    try:
        AnnouncingServer(config, announce).run(sockets=[listener])
    except KeyboardInterrupt:
        return 0
    finally:
        if options.address_file:
            address_file.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
