"""Reads a model's ``output.json`` into arrays, and refuses one that is not what the model promises.

Vectors go from the JSON parser's buffer into float32 without a Python number in between. The wrapper around the rows is
read tolerantly, since the documentation and what is seen in the field differ; the rows themselves strictly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import simdjson
from numpy.typing import NDArray

from media_embeddings.media import MediaType
from media_embeddings.models.protocol import EmbeddingModel
from media_embeddings.reasons import Reason, ReasonCode

_TIMED = frozenset({MediaType.VIDEO, MediaType.AUDIO})
_SCOPES = ("asset", "clip")
# {"data": {"embeddings": [...]}}: more than have been seen around the rows.
_MOST_WRAPPERS = 2


class OutputInvalidError(Exception):
    """An output is not what the model promises; the reason says where and how."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.reason = Reason(ReasonCode.OUTPUT_INVALID, message)


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
class _Row:
    number: int
    """Its place in the document, for messages."""
    vector: Any
    """The parser's array; it is read when its place among the rows is known."""
    start_sec: float | None
    end_sec: float | None
    option: str | None
    scope: str

    @property
    def order(self) -> tuple[float, str, str, float]:
        return (self.start_sec or 0.0, self.scope, self.option or "", self.end_sec or 0.0)


def parse_output(document: bytes, model: EmbeddingModel, media_type: MediaType) -> SegmentRows:
    """Return the segments of an ``output.json``.

    :raises OutputInvalidError: where it is truncated or malformed, holds no row, or a row has a wrong length, a number
        that is not finite, an unknown option or scope, or impossible times. One bad row refuses the whole object:
        readers see whole objects or none.
    """
    try:
        # A parser of its own, since the parsed document lives in its parser's memory.
        parsed = simdjson.Parser().parse(document)
    # Integers of more than 64 bits and too deep a nesting are RuntimeErrors to this parser.
    except (ValueError, RuntimeError) as error:
        raise OutputInvalidError(f"not JSON, or cut off: {error} ({len(document)} bytes)") from error
    rows = [_read_row(number, row, model, media_type) for number, row in enumerate(_entries(parsed))]
    if not rows:
        raise OutputInvalidError("there are no rows in it")
    rows.sort(key=lambda row: row.order)
    _refuse_duplicates(rows)
    # With a bracket a vector and one around the rows, none is left for a list within a vector.
    flat = document.count(b"[") <= len(rows) + 1
    return SegmentRows(
        embedding=_vectors(rows, model.dimension, flat=flat),
        start_sec=[row.start_sec for row in rows],
        end_sec=[row.end_sec for row in rows],
        embedding_option=[row.option for row in rows],
        embedding_scope=[row.scope for row in rows],
    )


def _entries(document: Any) -> Iterable[Any]:
    """Return the rows of any of the wrappers that are documented or were seen."""
    for _ in range(_MOST_WRAPPERS + 1):
        if isinstance(document, simdjson.Array):
            return document
        if not isinstance(document, simdjson.Object):
            break
        if "embedding" in document:
            return [document]
        document = document.get("data", document.get("embeddings"))
    raise OutputInvalidError("it has neither data, embeddings nor embedding; the model's output has changed its form")


def _read_row(number: int, row: Any, model: EmbeddingModel, media_type: MediaType) -> _Row:
    if not isinstance(row, simdjson.Object) or "embedding" not in row:
        raise OutputInvalidError(f"row {number} has no embedding")
    vector = row["embedding"]
    if not isinstance(vector, simdjson.Array):
        raise OutputInvalidError(f"row {number}: its embedding is no list")
    timed = media_type in _TIMED
    scope = _text(number, row, "embeddingScope") or ("clip" if timed else "asset")
    if scope not in _SCOPES:
        raise OutputInvalidError(f"row {number} has the unknown embeddingScope {scope!r}")
    option = _text(number, row, "embeddingOption")
    if option is not None and option not in model.embedding_options:
        allowed = ", ".join(sorted(model.embedding_options))
        raise OutputInvalidError(f"row {number} has the unknown embeddingOption {option!r}, not one of {allowed}")
    start, end = _times(number, row, scope) if timed else (None, None)
    return _Row(number, vector, start, end, option, scope)


def _vectors(rows: Sequence[_Row], dimension: int, *, flat: bool) -> NDArray[np.float32]:
    vectors = np.empty((len(rows), dimension), dtype=np.float32)
    # A number that float32 can't hold becomes infinite here, and is refused for that.
    with np.errstate(over="ignore"):
        for vector, row in zip(vectors, rows, strict=True):
            vector[:] = _numbers(row, dimension, flat=flat)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        number = rows[int(np.argmin(finite))].number
        raise OutputInvalidError(f"row {number}: its embedding holds NaN, infinity, or a number too large for float32")
    return vectors


def _numbers(row: _Row, dimension: int, *, flat: bool) -> NDArray[np.float64]:
    try:
        numbers = np.frombuffer(row.vector.as_buffer(of_type="d"), dtype=np.float64)
    except (TypeError, ValueError) as error:
        message = f"row {row.number}: its embedding holds something else than numbers ({error})"
        raise OutputInvalidError(message) from error
    # The parser flattens lists within the list.
    if not flat and any(isinstance(value, simdjson.Array) for value in row.vector):
        raise OutputInvalidError(f"row {row.number}: its embedding holds something else than numbers (a list)")
    if len(numbers) != dimension:
        raise OutputInvalidError(f"row {row.number} has {len(numbers)} numbers, the model's vectors have {dimension}")
    return numbers


def _text(number: int, row: Any, name: str) -> str | None:
    value = row.get(name)
    # The guide's template writes some of these as a list of one.
    if isinstance(value, simdjson.Array) and len(value) == 1:
        value = value[0]
    if value is not None and not isinstance(value, str):
        raise OutputInvalidError(f"row {number}: {name} is no text")
    return value


def _times(number: int, row: Any, scope: str) -> tuple[float | None, float | None]:
    start, end = row.get("startSec"), row.get("endSec", row.get("endsec"))
    for value in (start, end):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise OutputInvalidError(f"row {number}: startSec or endSec is no number")
    if scope != "asset" and (start is None or end is None):
        raise OutputInvalidError(f"row {number} has no startSec or no endSec")
    if (start or 0.0) < 0 or (end is not None and end <= (start or 0.0)):
        raise OutputInvalidError(f"row {number} covers {start} s to {end} s, which is no stretch of time")
    return (None if start is None else float(start), None if end is None else float(end))


def _refuse_duplicates(rows: Sequence[_Row]) -> None:
    for one, other in pairwise(rows):
        if one.order == other.order:
            raise OutputInvalidError(f"two rows are for the same {one.scope}, option {one.option} and time")
