"""Reads an ``output.json`` while it arrives: cut between rows, so that memory holds its vectors and one cut of its text.

Where it can't be cut (:mod:`media_embeddings.row_cuts` says when), it is to be read as a whole: what is accepted in parts would
be accepted as a whole, with the same rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import chain

from media_embeddings.media import MediaType
from media_embeddings.models.protocol import EmbeddingModel
from media_embeddings.output_folder import OutputFolder
from media_embeddings.output_rows import NotAPartError, OutputInvalidError, OutputPart, PartRows, Place
from media_embeddings.part_parsers import Fragments, PartParsers
from media_embeddings.results import SegmentRows, parse_output, row_rules, rows_of_parts
from media_embeddings.row_cuts import Wrapper, last_cut

logger = logging.getLogger(__name__)

_OUTPUT = "output.json"


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

    :raises OutputInvalidError: as :func:`media_embeddings.results.parse_output` does, and for a bad row that comes before a
        second list of rows which that would take instead.
    :raises NotAPartError: where it has to be read as a whole; it may be good or bad.
    """
    arriving = iter(chunks)
    first, second = next(arriving, b""), next(arriving, None)
    if second is None:
        return parse_output(first, model, media_type)
    wrapper = Wrapper.of(first)
    if wrapper is None:
        raise NotAPartError("its wrapper is unknown")
    rules, parts, number = row_rules(model, media_type), list[PartRows](), 0
    for fragments, place in _parts(wrapper, chain([first[len(wrapper.opening) :], second], arriving)):
        parts.append(parsers.parse(fragments, OutputPart(wrapper, rules, number, place)))
        number += len(parts[-1].start_sec)
    return rows_of_parts(parts)


def _parts(wrapper: Wrapper, chunks: Iterable[bytes]) -> Iterator[tuple[Fragments, Place]]:
    """Yield the parts of a document whose chunks follow the wrapper's opening, each in fragments and with the wrapper."""
    pending: list[bytes | memoryview] = [wrapper.opening]
    for chunk in chunks:
        cut = last_cut(chunk)
        if cut is None:
            pending.append(chunk)
            continue
        yield (*pending, memoryview(chunk)[: cut[0]], wrapper.closing), Place.MIDDLE
        pending = [wrapper.opening, memoryview(chunk)[cut[1] :]]
    yield pending, Place.END
