"""Parses the rows of an ``output.json``, or of a part of one, into arrays, and refuses what is not what the model promises.

Vectors go from the JSON parser's buffer into float32 without a Python number in between. The wrapper around the rows is
read tolerantly, since the documentation and what is seen in the field differ; the rows themselves strictly. It imports
little, so that a process that only parses is started fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import simdjson
from numpy.typing import NDArray

from media_embeddings.reasons import Reason, ReasonCode
from media_embeddings.row_cuts import Wrapper, pieces

_SCOPES = ("asset", "clip")
# {"data": {"embeddings": [...]}}: more than have been seen around the rows.
_MOST_WRAPPERS = 2
_ROWS_KEYS = frozenset({"data", "embeddings", "embedding"})
_BRACKET = ord("[")


class OutputInvalidError(Exception):
    """An output is not what the model promises, or says itself what went wrong; the reason says where and how."""

    def __init__(self, message: str, code: ReasonCode = ReasonCode.OUTPUT_INVALID) -> None:
        super().__init__(message)
        self.reason = Reason(code, message)


class NotAPartError(Exception):
    """What was given as a part of an output is none: it has to be read as a whole."""


@dataclass(frozen=True, slots=True)
class RowRules:
    """What a model's rows of one media type have to be."""

    dimension: int
    embedding_options: frozenset[str]
    is_timed: bool
    """Whether the media have a time, as video and audio do."""


class Place(StrEnum):
    """Which part of an output a text is."""

    WHOLE = "whole"
    MIDDLE = "middle"
    """Rows between the whole's wrapper, closed where nothing is closed yet."""
    END = "end"
    """The last rows, and whatever comes after them."""


@dataclass(frozen=True, slots=True)
class OutputPart:
    """What has to be known of a part of an output to parse its text; ``place`` is its middle or its end."""

    wrapper: Wrapper
    rules: RowRules
    first: int
    """The number of its first row in the whole output, for messages."""
    place: Place


@dataclass(frozen=True, slots=True)
class PartRows:
    """The rows of a part of an output, in its order."""

    start_sec: list[float | None]
    end_sec: list[float | None]
    embedding_option: list[str | None]
    embedding_scope: list[str]
    embedding: NDArray[np.float32]
    """Shape (rows, dimension); every number is finite."""


def parse_rows(
    parser: simdjson.Parser, text: bytes | memoryview, rules: RowRules, *, first: int = 0, place: Place = Place.WHOLE
) -> PartRows:
    """Return the rows of a document that has the wrapper of the whole output.

    :param parser: whose memory is used; nothing of an earlier document may be kept.
    :param first: the number of its first row in the whole, for messages.
    :raises OutputInvalidError: where it holds no rows, or a row has a wrong length, a number that is not finite, an unknown
        option or scope, or impossible times.
    :raises NotAPartError: where it is no JSON, or is no such part.
    """
    try:
        document = parser.parse(text)
    # Integers of more than 64 bits and too deep a nesting are RuntimeErrors to this parser.
    except (ValueError, RuntimeError) as error:
        raise NotAPartError(str(error)) from error
    if (place is Place.MIDDLE and not _is_middle(document)) or (place is Place.END and not _is_end(document)):
        raise NotAPartError("its wrapper is another")
    entries = list(_entries(document))
    # With a bracket a vector and one around several rows, none is left for a list within a vector.
    brackets = int(np.count_nonzero(np.frombuffer(text, np.uint8) == _BRACKET))
    flat = len(entries) > 1 and brackets <= len(entries) + 1
    # A number takes two bytes of text at least: where there are more entries than that, one is no row.
    most = min(len(entries), len(text) // (2 * rules.dimension) + 1)
    rows = PartRows([], [], [], [], np.empty((most, rules.dimension), dtype=np.float32))
    # A number that float32 can't hold becomes infinite here, and is refused for that.
    with np.errstate(over="ignore"):
        for at, entry in enumerate(entries):
            numbers = numbers_of(first + at, _read_row(first + at, entry, rules, rows), rules.dimension, flat=flat)
            rows.embedding[at] = numbers
    refuse_infinite(rows.embedding, first)
    return rows


def parse_part(parser: simdjson.Parser, text: memoryview, part: OutputPart) -> PartRows:
    """Return the rows of a part of an output, whose text has the wrapper of the whole.

    :param text: in memory of its own, of no use afterwards.
    :raises OutputInvalidError: as :func:`parse_rows` does.
    :raises NotAPartError: likewise.
    """
    found: list[PartRows] = []
    number = part.first
    for piece, is_last in pieces(text, part.wrapper):
        place = part.place if is_last else Place.MIDDLE
        found.append(parse_rows(parser, piece, part.rules, first=number, place=place))
        number += len(found[-1].start_sec)
    return together(found)


def together(parts: Sequence[PartRows]) -> PartRows:
    """Return the rows of parts, at least one, that follow each other."""
    if len(parts) == 1:
        return parts[0]
    return PartRows(
        start_sec=[start for part in parts for start in part.start_sec],
        end_sec=[end for part in parts for end in part.end_sec],
        embedding_option=[option for part in parts for option in part.embedding_option],
        embedding_scope=[scope for part in parts for scope in part.embedding_scope],
        embedding=np.concatenate([part.embedding for part in parts]),
    )


def numbers_of(number: int, vector: Any, dimension: int, *, flat: bool) -> NDArray[np.float64]:
    """Return the numbers of the parser's array of row ``number``, of which ``flat`` says that it holds no lists for sure.

    :raises OutputInvalidError: where it has another length, or holds something else than numbers.
    """
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


def refuse_infinite(vectors: NDArray[np.float32], first: int) -> None:
    """Refuse vectors, of which the first is that of row ``first``, that hold something else than finite numbers.

    :raises OutputInvalidError: naming the row.
    """
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        number = first + int(np.argmin(finite))
        raise OutputInvalidError(f"row {number}: its embedding holds NaN, infinity, or a number too large for float32")


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


def _read_row(number: int, row: Any, rules: RowRules, rows: PartRows) -> Any:
    """Add what a row says of its segment to the rows, and return the parser's array of its vector."""
    # The parser is slow to say that a key is not there.
    keys = list(row) if isinstance(row, simdjson.Object) else []
    if "embedding" not in keys:
        raise OutputInvalidError(f"row {number} has no embedding")
    vector = row["embedding"]
    if not isinstance(vector, simdjson.Array):
        raise OutputInvalidError(f"row {number}: its embedding is no list")
    scope = _text(number, row, keys, "embeddingScope") or ("clip" if rules.is_timed else "asset")
    if scope not in _SCOPES:
        raise OutputInvalidError(f"row {number} has the unknown embeddingScope {scope!r}")
    option = _text(number, row, keys, "embeddingOption")
    if option is not None and option not in rules.embedding_options:
        allowed = ", ".join(sorted(rules.embedding_options))
        raise OutputInvalidError(f"row {number} has the unknown embeddingOption {option!r}, not one of {allowed}")
    start, end = _times(number, row, keys, scope) if rules.is_timed else (None, None)
    rows.start_sec.append(start)
    rows.end_sec.append(end)
    rows.embedding_option.append(option)
    rows.embedding_scope.append(scope)
    return vector


def _text(number: int, row: Any, keys: Sequence[str], name: str) -> str | None:
    value = row[name] if name in keys else None
    # The guide's template writes some of these as a list of one.
    if isinstance(value, simdjson.Array) and len(value) == 1:
        value = value[0]
    if value is not None and not isinstance(value, str):
        raise OutputInvalidError(f"row {number}: {name} is no text")
    return value


def _times(number: int, row: Any, keys: Sequence[str], scope: str) -> tuple[float | None, float | None]:
    start = row["startSec"] if "startSec" in keys else None
    end_key = "endSec" if "endSec" in keys else "endsec"
    end = row[end_key] if end_key in keys else None
    for value in (start, end):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise OutputInvalidError(f"row {number}: startSec or endSec is no number")
    if scope != "asset" and (start is None or end is None):
        raise OutputInvalidError(f"row {number} has no startSec or no endSec")
    if (start or 0.0) < 0 or (end is not None and end <= (start or 0.0)):
        raise OutputInvalidError(f"row {number} covers {start} s to {end} s, which is no stretch of time")
    return (None if start is None else float(start), None if end is None else float(end))
