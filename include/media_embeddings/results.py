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
    embedding: NDArray[np.float32]
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
    except ValueError as error:
        raise OutputInvalidError(f"not JSON, or cut off: {error} ({len(document)} bytes)") from error
    rows = [_read_row(number, row, model, media_type) for number, row in enumerate(_entries(parsed))]
    if not rows:
        raise OutputInvalidError("there are no rows in it")
    rows.sort(key=lambda row: row.order)
    _refuse_duplicates(rows)
    return SegmentRows(
        embedding=np.stack([row.embedding for row in rows]),
        start_sec=[row.start_sec for row in rows],
        end_sec=[row.end_sec for row in rows],
        embedding_option=[row.option for row in rows],
        embedding_scope=[row.scope for row in rows],
    )


def _entries(document: Any) -> Iterable[Any]:
    """Return the rows of any of the wrappers that are documented or were seen."""
    if isinstance(document, simdjson.Array):
        return document
    if isinstance(document, simdjson.Object):
        if "embedding" in document:
            return [document]
        for name in ("data", "embeddings"):
            if name in document:
                return _entries(document[name])
    raise OutputInvalidError("it has neither data, embeddings nor embedding; the model's output has changed its form")


def _read_row(number: int, row: Any, model: EmbeddingModel, media_type: MediaType) -> _Row:
    if not isinstance(row, simdjson.Object) or "embedding" not in row:
        raise OutputInvalidError(f"row {number} has no embedding")
    timed = media_type in _TIMED
    scope = _text(number, row, "embeddingScope") or ("clip" if timed else "asset")
    if scope not in _SCOPES:
        raise OutputInvalidError(f"row {number} has the unknown embeddingScope {scope!r}")
    option = _text(number, row, "embeddingOption")
    if option is not None and option not in model.embedding_options:
        allowed = ", ".join(sorted(model.embedding_options))
        raise OutputInvalidError(f"row {number} has the unknown embeddingOption {option!r}, not one of {allowed}")
    start, end = _times(number, row, scope) if timed else (None, None)
    return _Row(_vector(number, row["embedding"], model.dimension), start, end, option, scope)


def _vector(number: int, values: Any, dimension: int) -> NDArray[np.float32]:
    if not isinstance(values, simdjson.Array):
        raise OutputInvalidError(f"row {number}: its embedding is no list")
    length = len(values)
    if length != dimension:
        raise OutputInvalidError(f"row {number} has {length} numbers, the model's vectors have {dimension}")
    try:
        vector = np.frombuffer(values.as_buffer(of_type="d"), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise OutputInvalidError(f"row {number}: its embedding holds something else than numbers ({error})") from error
    # A value that float32 can't hold becomes infinite here, and is refused for that.
    with np.errstate(over="ignore"):
        narrowed = vector.astype(np.float32)
    if len(vector) != dimension or not np.isfinite(narrowed).all():
        raise OutputInvalidError(f"row {number}: its embedding holds NaN, infinity, or a number too large for float32")
    return narrowed


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
    if scope == "asset" and (start is None or end is None):
        return (None if start is None else float(start), None if end is None else float(end))
    if start is None or end is None:
        raise OutputInvalidError(f"row {number} has no startSec or no endSec")
    if not 0 <= start < end:
        raise OutputInvalidError(f"row {number} covers {start} s to {end} s, which is no stretch of time")
    return float(start), float(end)


def _refuse_duplicates(rows: Sequence[_Row]) -> None:
    for one, other in pairwise(rows):
        if one.order == other.order:
            raise OutputInvalidError(f"two rows are for the same {one.scope}, option {one.option} and time")
