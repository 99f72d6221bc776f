"""Starts and stops the local stack and the demo: ``python -m local_stack``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence

import boto3

from local_stack.compose import write_environment_file
from local_stack.demo import LOCAL, Demo, upload_sample_library
from local_stack.processes import LocalStackError
from local_stack.stack import LocalStack

FAILED = 1
INTERRUPTED = 130


def demo() -> int:
    """Run the demo."""
    return 0 if Demo().run() else FAILED


def demo_down() -> int:
    """Stop what the demo has started."""
    stopped = Demo().stop()
    print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running that the demo has started")
    return 0


def stack_up() -> int:
    """Start S3 and the Bedrock simulator."""
    stack = LocalStack(LOCAL).start()
    print(f"S3 at {stack.seaweedfs.endpoint_url}, Bedrock simulator at {stack.simulator.endpoint_url}")
    print(f"use them in this shell:  . {stack.environment_path}")
    return 0


def stack_down() -> int:
    """Stop S3 and the Bedrock simulator; what they hold stays."""
    LocalStack(LOCAL).stop()
    return 0


def upload() -> int:
    """Upload the sample library to the S3 server that the AWS environment variables name."""
    uploaded = upload_sample_library(boto3.client("s3"), LOCAL)
    print(f"{uploaded.uploaded} objects uploaded, {uploaded.unchanged} were there already")
    return 0


def compose_env() -> int:
    """Write the environment file of docker-compose.yaml, unless it exists."""
    path = LOCAL / "compose.env"
    print(f"wrote {path}" if write_environment_file(path) else f"{path} exists already")
    return 0


COMMANDS: Mapping[tuple[str, ...], Callable[[], int]] = {
    ("demo",): demo,
    ("demo-down",): demo_down,
    ("stack", "up"): stack_up,
    ("stack", "down"): stack_down,
    ("upload",): upload,
    ("compose-env",): compose_env,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m local_stack",
        description="S3, Bedrock and Airflow on this machine.",
        epilog="commands: "
        + "; ".join(f"{' '.join(name)} ({(command.__doc__ or '').rstrip('.')})" for name, command in COMMANDS.items()),
    )
    parser.add_argument("command", nargs="+", help="what to do")
    command = COMMANDS.get(tuple(parser.parse_args(arguments).command))
    if command is None:
        parser.error("there is no such command")
    try:
        return command()
    except LocalStackError as error:
        print(f"\n{error}\n\nWhat is running goes on; `make demo-down` stops it.", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("\ninterrupted; what is running goes on, `make demo-down` stops it", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Having read a table, the interpreter may abort while it ends, which would hide whether the run succeeded: Arrow's
    # threads may let go of a Python file too late (https://github.com/apache/arrow/issues/34314).
    os._exit(code)
