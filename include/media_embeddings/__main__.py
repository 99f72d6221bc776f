"""The command line: what was not embedded and why, and letting it be tried again.

AWS is reached as the AWS SDKs are configured in the environment; the libraries are those of ``MEDIA_EMBEDDINGS_CONFIG``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import boto3

from media_embeddings.configuration import ConfigurationError, load_configuration
from media_embeddings.library import Library
from media_embeddings.planning import Status
from media_embeddings.release import NOT_EMBEDDED, failed_objects, release
from media_embeddings.storage import Storage


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, or 2 where it could not be understood."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        library = _library(given.library)
    except (ConfigurationError, KeyError) as error:
        sys.stderr.write(f"{error.args[0] if isinstance(error, KeyError) else error}\n")
        return 2
    storage = Storage.of_session(boto3.Session(region_name=library.region))
    model = given.model or library.model
    if given.command == "failed":
        _show_failed(storage, library, model, [Status(name) for name in given.status])
    else:
        released = release(storage, library, model, given.uris)
        sys.stdout.write("".join(f"{uri}\n" for uri in released))
        sys.stdout.write(f"{len(released)} objects released; the next run makes another attempt at each\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m media_embeddings", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    failed = commands.add_parser("failed", help="list what was not embedded, and why")
    failed.add_argument("--status", nargs="+", choices=[str(one) for one in NOT_EMBEDDED], default=list(NOT_EMBEDDED))
    released = commands.add_parser("release", help="let the next run try again what failed or is quarantined")
    released.add_argument("uris", nargs="+", metavar="URI", help="s3:// URIs, or globs of them in quotes")
    for command in (failed, released):
        command.add_argument("--library", required=True, help="name of the library")
        command.add_argument("--model", help="a model other than the library's")
    return parser


def _library(name: str) -> Library:
    configuration = load_configuration()
    for library in configuration.libraries:
        if library.name == name:
            return library
    known = ", ".join(library.name for library in configuration.libraries)
    raise KeyError(f"there is no library {name!r} without an error in its settings; there are {known or 'none'}")


def _show_failed(storage: Storage, library: Library, model: str, statuses: Sequence[Status]) -> None:
    rows = failed_objects(storage, library, model, statuses).to_pylist()
    for row in rows:
        sys.stdout.write(
            f"{row['media_uri']}\t{row['status']}\t{row['reason_code']}\tattempts {row['attempts']}\t{row['reason']}\n"
        )
    sys.stdout.write(f"{len(rows)} objects\n")


if __name__ == "__main__":
    sys.exit(main())
