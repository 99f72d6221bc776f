"""The command line: search, what was not embedded and why, letting it be tried again, and upkeep of the tables.

AWS is reached as the AWS SDKs are configured in the environment; the libraries are those of ``MEDIA_EMBEDDINGS_CONFIG``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import boto3

from media_embeddings.configuration import ConfigurationError, load_configuration
from media_embeddings.library import Library
from media_embeddings.planning import Status
from media_embeddings.release import NOT_EMBEDDED, failed_objects, release
from media_embeddings.search import command as searching
from media_embeddings.storage import Storage
from media_embeddings.upkeep.maintenance import Options, maintain
from media_embeddings.upkeep.roots import table_roots


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 where upkeep or a search failed, or 2 where it was not understood."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        if given.command == "maintain":
            return _maintain(given.library, dry_run=given.dry_run)
        if given.command == "search":
            return _search(given)
        library = _library(given.library)
    except (ConfigurationError, KeyError) as error:
        sys.stderr.write(f"{error.args[0] if isinstance(error, KeyError) else error}\n")
        return 2
    storage = _storage(library)
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
    maintained = commands.add_parser("maintain", help="compaction, check, expiry and vacuum of the tables")
    maintained.add_argument("--library", help="only the tables of this library; all of them otherwise")
    maintained.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    searching.add_arguments(
        commands.add_parser("search", help="find the segments nearest to a text, an image or an object")
    )
    for command in (failed, released):
        command.add_argument("--library", required=True, help="name of the library")
        command.add_argument("--model", help="a model other than the library's")
    return parser


def _storage(library: Library) -> Storage:
    return Storage.of_session(boto3.Session(region_name=library.region))


def _search(given: argparse.Namespace) -> int:
    """Print the hits, and return whether there is no answer."""
    try:
        sys.stdout.write(searching.answer(given, _library))
    except searching.UNANSWERED as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _maintain(name: str | None, *, dry_run: bool) -> int:
    """Keep the tables of one library or of all, print the reports, and return whether that failed."""
    wanted = None if name is None else _library(name).name
    roots = [
        root
        for root in table_roots(load_configuration().libraries)
        if wanted is None or wanted in {library.name for library in root.libraries}
    ]
    run_id = f"manual-{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}"
    reports = [maintain(root, _storage, run_id, Options(dry_run=dry_run)) for root in roots]
    sys.stdout.write("\n".join(report.as_markdown() for report in reports))
    return int(not all(report.succeeded for report in reports))


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
