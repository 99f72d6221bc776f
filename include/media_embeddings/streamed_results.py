"""Reads an ``output.json`` while it arrives: cut between rows, so that memory holds its vectors and one cut of its text.

A cut is made where ``}``, a comma and ``{`` follow each other, and each part is given the wrapper of the whole. Where that
is not between two rows, but within a text or a deeper list, the part is no JSON; where it is in another list of the
wrapper, the part has another key. In both cases, and for a wrapper that is not known, the output is to be read as a whole:
what is accepted in parts would be accepted as a whole, with the same rows.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import simdjson

from media_embeddings.media import MediaType
from media_embeddings.models.protocol import EmbeddingModel
from media_embeddings.output_folder import OutputFolder
from media_embeddings.results import NotAPartError, OutputInvalidError, OutputParser, SegmentRows, parse_output

logger = logging.getLogger(__name__)

_OUTPUT = "output.json"
# Up to a first row, a list of them in the wrappers that results.py knows.
_WRAPPER = re.compile(rb'\s*(?:\{\s*"(?:data|embeddings)"\s*:\s*){0,2}\[\s*(?=\{)')
_BETWEEN_ROWS = re.compile(rb"\}\s*,\s*(?=\{)")
_LONGEST_BETWEEN = 64
# An output is made of rows that are all alike: where so many braces are no ends of rows, none is.
_MOST_BRACES = 64
_ROWS_KEYS = frozenset({"data", "embeddings", "embedding"})


def read_rows(folder: OutputFolder, model: EmbeddingModel, media_type: MediaType) -> SegmentRows:
    """Return the segments of an invocation's ``output.json``, read as a stream where that can be.

    :raises OutputInvalidError: as :func:`media_embeddings.results.parse_output` does.
    :raises ObjectNotFoundError: where it is not there.
    """
    try:
        with folder.chunks(_OUTPUT) as chunks:
            try:
                return parse_chunks(chunks, model, media_type)
            except NotAPartError as error:
                logger.info("%s/%s is read as a whole: %s", folder.uri, _OUTPUT, error)
        with folder.whole(_OUTPUT) as document:
            return parse_output(document, model, media_type)
    except OutputInvalidError as error:
        raise OutputInvalidError(f"{_OUTPUT}: {error.reason.message}") from error


def parse_chunks(chunks: Iterable[bytes], model: EmbeddingModel, media_type: MediaType) -> SegmentRows:
    """Return the segments of an ``output.json`` that arrives in chunks, each of several rows if there are many.

    :raises OutputInvalidError: as :func:`media_embeddings.results.parse_output` does.
    :raises NotAPartError: where it has to be read as a whole; it may be good or bad.
    """
    arriving = iter(chunks)
    first, second = next(arriving, b""), next(arriving, None)
    if second is None:
        return parse_output(first, model, media_type)
    parser = OutputParser(model, media_type)
    for part, is_last in _parts(first, chain([second], arriving)):
        parser.read(part, is_part=_is_end if is_last else _is_middle)
    return parser.rows()


def _parts(first: bytes, others: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield the parts of a document, each with the whole's wrapper, and whether it is the last one."""
    wrapper = _WRAPPER.match(first)
    if wrapper is None:
        raise NotAPartError("its wrapper is unknown")
    opening = wrapper.group()
    closing = b"]" + b"}" * opening.count(b"{")
    pending: list[bytes | memoryview] = [opening]
    for chunk in chain([first[len(opening) :]], others):
        cut = _last_cut(chunk)
        if cut is None:
            pending.append(chunk)
            continue
        yield b"".join((*pending, memoryview(chunk)[: cut[0]], closing)), False
        pending = [opening, chunk[cut[1] :]]
    yield b"".join(pending), True


def _last_cut(text: bytes) -> tuple[int, int] | None:
    """Return where the last row but one ends and the last one begins, of those that may be told apart."""
    end = len(text)
    for _ in range(_MOST_BRACES):
        start = text.rfind(b"}", 0, end)
        if start < 0:
            break
        found = _BETWEEN_ROWS.match(text, start, start + _LONGEST_BETWEEN)
        if found is not None:
            return start + 1, found.end()
        end = start
    return None


def _is_middle(document: Any) -> bool:
    """Whether there is nothing but the rows: nothing has come after them where the wrapper was closed."""
    while isinstance(document, simdjson.Object):
        if len(document) != 1:
            return False
        document = document[next(iter(document))]
    return isinstance(document, simdjson.Array)


def _is_end(document: Any) -> bool:
    """Whether there is one list of rows only; other things may have come after it."""
    while isinstance(document, simdjson.Object):
        keys = [key for key in document if key in _ROWS_KEYS]
        if len(keys) != 1:
            return False
        document = document[keys[0]]
    return isinstance(document, simdjson.Array)


__all__ = ["NotAPartError", "parse_chunks", "read_rows"]
