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

from media_embeddings.media import MediaType
from media_embeddings.models.protocol import EmbeddingModel
from media_embeddings.output_folder import OutputFolder
from media_embeddings.output_rows import NotAPartError, OutputInvalidError, PartRows, Place
from media_embeddings.part_parsers import PartParsers, Pieces
from media_embeddings.results import SegmentRows, parse_output, row_rules, rows_of_parts

logger = logging.getLogger(__name__)

_OUTPUT = "output.json"
# Up to a first row, a list of them in the wrappers that output_rows.py knows.
_WRAPPER = re.compile(rb'\s*(?:\{\s*"(?:data|embeddings)"\s*:\s*){0,2}\[\s*(?=\{)')
_BETWEEN_ROWS = re.compile(rb"\}\s*,\s*(?=\{)")
_LONGEST_BETWEEN = 64
# An output is made of rows that are all alike: where so many braces are no ends of rows, none is.
_MOST_BRACES = 64


def read_rows(folder: OutputFolder, model: EmbeddingModel, media_type: MediaType) -> SegmentRows:
    """Return the segments of an invocation's ``output.json``, read as a stream where that can be.

    :raises OutputInvalidError: as :func:`media_embeddings.results.parse_output` does.
    :raises ObjectNotFoundError: where it is not there.
    """
    try:
        with folder.chunks(_OUTPUT) as chunks:
            try:
                return parse_chunks(chunks, model, media_type, folder.parsers)
            except NotAPartError as error:
                logger.info("%s/%s is read as a whole: %s", folder.uri, _OUTPUT, error)
        with folder.whole(_OUTPUT) as document:
            return parse_output(document, model, media_type)
    except OutputInvalidError as error:
        raise OutputInvalidError(f"{_OUTPUT}: {error.reason.message}") from error


def parse_chunks(
    chunks: Iterable[bytes], model: EmbeddingModel, media_type: MediaType, parsers: PartParsers
) -> SegmentRows:
    """Return the segments of an ``output.json`` that arrives in chunks, each of several rows if there are many.

    :raises OutputInvalidError: as :func:`media_embeddings.results.parse_output` does.
    :raises NotAPartError: where it has to be read as a whole; it may be good or bad.
    """
    arriving = iter(chunks)
    first, second = next(arriving, b""), next(arriving, None)
    if second is None:
        return parse_output(first, model, media_type)
    rules, parts, rows = row_rules(model, media_type), list[PartRows](), 0
    for pieces, place in _parts(first, chain([second], arriving)):
        parts.append(parsers.parse(pieces, rules, first=rows, place=place))
        rows += len(parts[-1].start_sec)
    return rows_of_parts(parts)


def _parts(first: bytes, others: Iterable[bytes]) -> Iterator[tuple[Pieces, Place]]:
    """Yield the parts of a document, each in pieces and with the whole's wrapper."""
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
        yield (*pending, memoryview(chunk)[: cut[0]], closing), Place.MIDDLE
        pending = [opening, memoryview(chunk)[cut[1] :]]
    yield pending, Place.END


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
