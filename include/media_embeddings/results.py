"""Reads a model's ``output.json`` into arrays, and refuses one that is not what the model promises.

Vectors go from the JSON parser's buffer into float32 without a Python number in between. The wrapper around the rows is
read tolerantly, since the documentation and what is seen in the field differ; the rows themselves strictly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
    """An output is not what the model promises, or says itself what went wrong; the reason says where and how."""

    def __init__(self, message: str, code: ReasonCode = ReasonCode.OUTPUT_INVALID) -> None:
        super().__init__(message)
        self.reason = Reason(code, message)


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
class _Row:
    number: int
    """Its place in the document, for messages."""
    start_sec: float | None
    end_sec: float | None
    option: str | None
    scope: str

    @property
    def order(self) -> tuple[float, str, str, float]:
        return (self.start_sec or 0.0, self.scope, self.option or "", self.end_sec or 0.0)


class OutputParser:
    """Reads the rows of one output, given whole or in parts that are rows between the same wrapper.

    :param model: whose output it is.
    :param media_type: of the media object.
    """

    def __init__(self, model: EmbeddingModel, media_type: MediaType) -> None:
        self._model, self._media_type = model, media_type
        # One of its own, since the parsed document lives in its parser's memory, which is used again for every part.
        self._parser = simdjson.Parser()
        self._rows: list[_Row] = []
        self._vectors: list[NDArray[np.float32]] = []

    def read(self, part: bytes, *, is_part: Callable[[Any], bool] | None = None) -> None:
        """Read the rows of a document that has the same wrapper as the whole.

        :param is_part: says of the parsed document whether it may be a part; it may not be used later.
        :raises OutputInvalidError: as :func:`parse_output` does.
        :raises NotAPartError: where it is no JSON, or may be no part.
        """
        try:
            document = self._parser.parse(part)
        # Integers of more than 64 bits and too deep a nesting are RuntimeErrors to this parser.
        except (ValueError, RuntimeError) as error:
            raise NotAPartError(str(error)) from error
        if is_part is not None and not is_part(document):
            raise NotAPartError("its wrapper is another")
        first = len(self._rows)
        entries = list(_entries(document))
        # With a bracket a vector and one around the rows, none is left for a list within a vector.
        flat = part.count(b"[") <= len(entries) + 1
        vectors = np.empty((len(entries), self._model.dimension), dtype=np.float32)
        # A number that float32 can't hold becomes infinite here, and is refused for that.
        with np.errstate(over="ignore"):
            for vector, (number, entry) in zip(vectors, enumerate(entries, start=first), strict=True):
                row, numbers = _read_row(number, entry, self._model, self._media_type)
                vector[:] = _numbers(number, numbers, self._model.dimension, flat=flat)
                self._rows.append(row)
        _refuse_infinite(vectors, first)
        self._vectors.append(vectors)

    def rows(self) -> SegmentRows:
        """Return the rows of everything that was read.

        :raises OutputInvalidError: where there are none, or two for the same segment.
        """
        if not self._rows:
            raise OutputInvalidError("there are no rows in it")
        keys = [row.order for row in self._rows]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        rows = [self._rows[place] for place in order]
        _refuse_duplicates(rows)
        vectors = np.concatenate(self._vectors) if len(self._vectors) > 1 else self._vectors[0]
        self._vectors = [vectors]
        return SegmentRows(
            # Vectors are heavy to move, and most outputs are in order.
            embedding=vectors if order == list(range(len(order))) else vectors[order],
            start_sec=[row.start_sec for row in rows],
            end_sec=[row.end_sec for row in rows],
            embedding_option=[row.option for row in rows],
            embedding_scope=[row.scope for row in rows],
        )


class NotAPartError(Exception):
    """What was given as a part of an output is none: it has to be read as a whole."""


def parse_output(document: bytes, model: EmbeddingModel, media_type: MediaType) -> SegmentRows:
    """Return the segments of an ``output.json``.

    :raises OutputInvalidError: where it is truncated or malformed, holds no row, or a row has a wrong length, a number
        that is not finite, an unknown option or scope, or impossible times. One bad row refuses the whole object:
        readers see whole objects or none.
    """
    parser = OutputParser(model, media_type)
    try:
        parser.read(document)
    except NotAPartError as error:
        raise OutputInvalidError(f"not JSON, or cut off: {error} ({len(document)} bytes)") from error
    return parser.rows()


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


def _read_row(number: int, row: Any, model: EmbeddingModel, media_type: MediaType) -> tuple[_Row, Any]:
    """Return what a row says of its segment, and the parser's array of its vector."""
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
    return _Row(number, start, end, option, scope), vector


def _refuse_infinite(vectors: NDArray[np.float32], first: int) -> None:
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        number = first + int(np.argmin(finite))
        raise OutputInvalidError(f"row {number}: its embedding holds NaN, infinity, or a number too large for float32")


def _numbers(number: int, vector: Any, dimension: int, *, flat: bool) -> NDArray[np.float64]:
    try:
        numbers = np.frombuffer(vector.as_buffer(of_type="d"), dtype=np.float64)
    except (TypeError, ValueError) as error:
        message = f"row {number}: its embedding holds something else than numbers ({error})"
        raise OutputInvalidError(message) from error
    # The parser flattens lists within the list.
    if not flat and any(isinstance(value, simdjson.Array) for value in vector):
        raise OutputInvalidError(f"row {number}: its embedding holds something else than numbers (a list)")
    if len(numbers) != dimension:
        raise OutputInvalidError(f"row {number} has {len(numbers)} numbers, the model's vectors have {dimension}")
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
