"""``python -m media_embeddings search``: its arguments, and how hits are printed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from media_embeddings.library import Library
from media_embeddings.media import MediaType
from media_embeddings.models import model_named
from media_embeddings.search.access import as_configured
from media_embeddings.search.queries import (
    ImageQuery,
    LikeQuery,
    Query,
    SearchRefusedError,
    StoredImageQuery,
    TextQuery,
)
from media_embeddings.search.query_vectors import QueryVectorError
from media_embeddings.search.scanning import TableUnreachableError
from media_embeddings.search.searching import Found, Hit, search

__all__ = ["UNANSWERED", "add_arguments", "answer"]

UNANSWERED = (SearchRefusedError, QueryVectorError, TableUnreachableError)
"""What keeps a search from an answer; the message is for people."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be asked."""
    parser.add_argument(
        "--library", action="append", required=True, help="name of a library; several are searched as one"
    )
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument("--text", help="search by words")
    query.add_argument("--image", metavar="PATH_OR_URI", help="search by an image: a file, or an s3:// URI")
    query.add_argument("--like", metavar="URI", help="search by a media object that is in a table of the libraries")
    parser.add_argument("--segment", type=int, metavar="N", help="with --like: by its segment of this number")
    parser.add_argument(
        "--top", type=int, default=10, metavar="N", help="print at most so many hits (default %(default)s)"
    )
    parser.add_argument("--model", help="search this model's tables, whatever the libraries are searched with")
    parser.add_argument("--media-type", action="append", choices=[str(one) for one in MediaType], help="only these")
    parser.add_argument("--option", action="append", help="only segments with this embedding option; may be repeated")
    parser.add_argument("--scope", choices=["clip", "asset"], help="only segments of this scope")
    parser.add_argument(
        "--profile",
        action="append",
        default=[],
        metavar="LIBRARY=PROFILE",
        help="reach a library with an AWS profile of its own; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def answer(given: argparse.Namespace, library_named: Callable[[str], Library]) -> str:
    """Return what is printed for the arguments.

    :raises KeyError: where there is no such library.
    """
    # A name that is given twice is searched once.
    libraries = [library_named(name) for name in dict.fromkeys(given.library)]
    found = search(
        libraries,
        _query(given),
        model=_model(given.model),
        top=given.top,
        media_types=None if given.media_type is None else [MediaType(name) for name in given.media_type],
        options=given.option,
        scope=given.scope,
        access_of=as_configured(dict(_profiles(given.profile, libraries))),
    )
    return f"{json.dumps(asdict(found), ensure_ascii=False)}\n" if given.json else _for_people(found)


def _query(given: argparse.Namespace) -> Query:
    if given.segment is not None and given.like is None:
        raise SearchRefusedError("--segment goes with --like: it is the number of a segment of that media object")
    if given.text is not None:
        return TextQuery(given.text)
    if given.like is not None:
        return LikeQuery(given.like, given.segment)
    if given.image.startswith("s3://"):
        return StoredImageQuery(given.image)
    try:
        return ImageQuery(Path(given.image).read_bytes())
    except OSError as error:
        raise SearchRefusedError(f"the image {given.image} can't be read: {error.strerror}") from error


def _model(name: str | None) -> str | None:
    try:
        return None if name is None else model_named(name).name
    except ValueError as error:
        raise SearchRefusedError(str(error)) from error


def _profiles(given: list[str], libraries: list[Library]) -> Iterator[tuple[str, str]]:
    for one in given:
        name, _, profile = one.partition("=")
        if not profile or name not in {library.name for library in libraries}:
            raise SearchRefusedError(f"--profile {one}: must be LIBRARY=PROFILE, with a library that is searched")
        yield name, profile


def _for_people(found: Found) -> str:
    lines = [
        f"{hit.score:.4f}\t{hit.library}\t{hit.region}\t{hit.media_uri}\t{_stretch(hit)}\t{_kind(hit)}\n"
        for hit in found.hits
    ]
    compared = ", ".join(f"{count:,} of {library}" for library, count in found.compared.items())
    hits = f"{len(found.hits)} hit{'' if len(found.hits) == 1 else 's'}"
    return "".join([*lines, f"{hits} by {found.model}; compared with the segments: {compared}\n"])


def _stretch(hit: Hit) -> str:
    """Return what of the object the segment is."""
    if hit.start_sec is not None and hit.end_sec is not None:
        return f"{hit.start_sec:g}-{hit.end_sec:g} s"
    if hit.start_char is not None:
        return f"characters {hit.start_char}-{hit.end_char}"
    return "whole"


def _kind(hit: Hit) -> str:
    return "/".join(part for part in (hit.embedding_option, hit.embedding_scope) if part is not None) or "-"
