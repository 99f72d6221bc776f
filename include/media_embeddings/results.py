"""The segments of a media object: read from a whole output, put in order, and refused where two of them are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import simdjson
from numpy.typing import NDArray

from media_embeddings.media import MediaType
from media_embeddings.models.protocol import EmbeddingModel
from media_embeddings.output_rows import (
    NotAPartError,
    OutputInvalidError,
    PartRows,
    RowRules,
    numbers_of,
    parse_rows,
    refuse_infinite,
    together,
)

Value = TypeVar("Value")

_TIMED = frozenset({MediaType.VIDEO, MediaType.AUDIO})


@dataclass(frozen=True, slots=True)
class SegmentRows:
    """The segments of one media object, in the order of (start_sec, embedding_scope, embedding_option)."""

    embedding: NDArray[np.float32]
    """Shape (segments, dimension); every number is finite."""
    start_sec: Sequence[float | None]
    """Seconds from the object's start; None for image and text, and where a whole asset's row gives none."""
    end_sec: Sequence[float | None]
    embedding_option: Sequence[str | None]
    """As the model names it; None where it gives none."""
    embedding_scope: Sequence[str]
    """``clip``, or ``asset`` for a row of the whole object, as those of images and texts are."""
    start_char: Sequence[int | None] | None = None
    """Of texts that were cut, in characters of the object's text; ``end_char`` is behind the last. None for all others."""
    end_char: Sequence[int | None] | None = None

    @property
    def segment_index(self) -> range:
        """Return 0, 1, ... in the order of the rows."""
        return range(len(self.embedding))

    @property
    def duration_sec(self) -> float | None:
        """Return the last second that a segment covers, or None for media without time."""
        ends = [end for end in self.end_sec if end is not None]
        return max(ends) if ends else None


@dataclass(frozen=True, slots=True)
class Segment:
    """What one embedding stands for."""

    start_sec: float | None = None
    end_sec: float | None = None
    option: str | None = None
    scope: str = "clip"
    start_char: int | None = None
    end_char: int | None = None


class SegmentCollector:
    """Collects segments one by one, of a model whose output is not Marengo's.

    :param dimension: of the model's vectors.
    """

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._segments: list[Segment] = []
        self._vectors: list[NDArray[np.float32]] = []

    def add(self, segment: Segment, vector: Any) -> None:
        """Take a segment with the parser's array of its vector.

        :raises OutputInvalidError: where it has another length, or holds what is no finite number.
        """
        number = len(self._segments)
        if not isinstance(vector, simdjson.Array):
            raise OutputInvalidError(f"row {number} has no embedding")
        with np.errstate(over="ignore"):
            numbers = numbers_of(number, vector, self._dimension, flat=False).astype(np.float32)
        self._segments.append(segment)
        self._vectors.append(numbers)

    def rows(self) -> SegmentRows:
        """Return what was collected, in order.

        :raises OutputInvalidError: where it is nothing, or two are for the same segment.
        """
        segments = self._segments
        has_characters = any(one.start_char is not None for one in segments)
        rows = SegmentRows(
            embedding=np.array(self._vectors, dtype=np.float32).reshape(-1, self._dimension),
            start_sec=[one.start_sec for one in segments],
            end_sec=[one.end_sec for one in segments],
            embedding_option=[one.option for one in segments],
            embedding_scope=[one.scope for one in segments],
            start_char=[one.start_char for one in segments] if has_characters else None,
            end_char=[one.end_char for one in segments] if has_characters else None,
        )
        refuse_infinite(rows.embedding, 0)
        return _in_order(rows)


def row_rules(model: EmbeddingModel, media_type: MediaType) -> RowRules:
    """Return what the rows of a media object have to be."""
    return RowRules(model.dimension, frozenset(model.embedding_options), media_type in _TIMED)


def parse_output(document: bytes, model: EmbeddingModel, media_type: MediaType) -> SegmentRows:
    """Return the segments of an ``output.json``.

    :raises OutputInvalidError: where it is truncated or malformed, holds no row, or a row has a wrong length, a number
        that is not finite, an unknown option or scope, or impossible times. One bad row refuses the whole object:
        readers see whole objects or none.
    """
    try:
        rows = parse_rows(simdjson.Parser(), document, row_rules(model, media_type))
    except NotAPartError as error:
        raise OutputInvalidError(f"not JSON, or cut off: {error} ({len(document)} bytes)") from error
    return rows_of_parts([rows])


def rows_of_parts(parts: Sequence[PartRows]) -> SegmentRows:
    """Return the segments of an output of which these are all parts.

    :raises OutputInvalidError: where there are none, or two are for the same segment.
    """
    rows = together(parts)
    return _in_order(
        SegmentRows(
            embedding=rows.embedding,
            start_sec=rows.start_sec,
            end_sec=rows.end_sec,
            embedding_option=rows.embedding_option,
            embedding_scope=rows.embedding_scope,
        )
    )


def _in_order(rows: SegmentRows) -> SegmentRows:
    """Return rows in the order of their segments.

    :raises OutputInvalidError: where there are none, or two are for the same segment.
    """
    starts, characters, scopes = rows.start_sec, rows.start_char or [None] * len(rows.start_sec), rows.embedding_scope
    keys = [
        (start or 0.0, character or 0, scope, option or "", end or 0.0)
        for start, character, scope, option, end in zip(
            starts, characters, scopes, rows.embedding_option, rows.end_sec, strict=True
        )
    ]
    if not keys:
        raise OutputInvalidError("there are no rows in it")
    # Vectors are heavy to move, and most outputs are in order.
    if all(one < other for one, other in pairwise(keys)):
        return rows
    order = sorted(range(len(keys)), key=keys.__getitem__)
    for one, other in pairwise(order):
        if keys[one] == keys[other]:
            scope, option = scopes[one], rows.embedding_option[one]
            raise OutputInvalidError(f"two rows are for the same {scope}, option {option} and time")

    def put(values: Sequence[Value]) -> list[Value]:
        return [values[place] for place in order]

    return SegmentRows(
        embedding=rows.embedding[order],
        start_sec=put(starts),
        end_sec=put(rows.end_sec),
        embedding_option=put(rows.embedding_option),
        embedding_scope=put(scopes),
        start_char=put(rows.start_char) if rows.start_char is not None else None,
        end_char=put(rows.end_char) if rows.end_char is not None else None,
    )


def read_json_lines(chunks: Iterable[bytes], read: Callable[[int, Any], None]) -> None:
    """Give each JSON object of a file of lines, that arrives in chunks, to a function with its number, from 0 on.

    The function may not keep it: its memory is used again for the next one.

    :raises OutputInvalidError: where a line is no JSON object.
    """
    parser = simdjson.Parser()
    for number, line in enumerate(line for line in _lines(chunks) if line.strip()):
        try:
            document = parser.parse(line)
        except (ValueError, RuntimeError) as error:
            raise OutputInvalidError(f"line {number + 1} is no JSON, or cut off: {error}") from error
        if not isinstance(document, simdjson.Object):
            raise OutputInvalidError(f"line {number + 1} is no JSON object")
        read(number, document)
        del document


def _lines(chunks: Iterable[bytes]) -> Iterable[bytes]:
    pending: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        pending.append(first)
        if others:
            yield b"".join(pending)
            *whole, last = others
            yield from whole
            pending = [last]
    yield b"".join(pending)


def joined(parts: Sequence[SegmentRows]) -> SegmentRows:
    """Return the rows of an object's requests one after the other; each is of a part of the object where there are several."""
    if len(parts) == 1:
        return parts[0]
    return SegmentRows(
        embedding=np.concatenate([one.embedding for one in parts]),
        start_sec=[start for one in parts for start in one.start_sec],
        end_sec=[end for one in parts for end in one.end_sec],
        embedding_option=[option for one in parts for option in one.embedding_option],
        embedding_scope=["clip" for one in parts for _ in one.embedding_scope],
        start_char=[start for one in parts for start in one.start_char or [None] * len(one.embedding)],
        end_char=[end for one in parts for end in one.end_char or [None] * len(one.embedding)],
    )
