"""Reads one column of JSON lines and of comma-separated values."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from media_embeddings.texts.object_text import Form, ObjectText, Piece, UnreadableTextError, joined

_MOST_NAMED = 10
# The module's own limit of 128 KiB is there for programs that don't limit the size of what they read.
_MOST_FIELD_CHARACTERS = 2**31 - 1


def json_lines(text: str, column: str) -> ObjectText:
    """Return the values of a member of the objects in JSON lines; null and the empty text are no values.

    :raises UnreadableTextError: naming the line that is no object or has no text under that name.
    """
    return joined((Piece(value) for value in _members(text, column)), Form.RECORDS)


def _members(text: str, column: str) -> Iterator[str]:
    # Not by str.splitlines: JSON's texts may hold other line separators.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UnreadableTextError(f"line {number} is no JSON: {error}") from error
        if not isinstance(record, dict):
            raise UnreadableTextError(f"line {number} is no JSON object but {_kind(record)}")
        if column not in record:
            raise UnreadableTextError(_missing(number, column, [str(name) for name in record]))
        value = record[column]
        if value is not None and not isinstance(value, str):
            raise UnreadableTextError(f"line {number}: {column!r} is no text but {_kind(value)}")
        yield _encodable(number, value or "")


def comma_separated(text: str, column: str) -> ObjectText:
    """Return the values of a column of comma-separated values, whose first row names the columns.

    :raises UnreadableTextError: naming the line that can't be read or has no such column.
    """
    return joined((Piece(value) for value in _fields(text, column)), Form.RECORDS)


def _fields(text: str, column: str) -> Iterator[str]:
    csv.field_size_limit(_MOST_FIELD_CHARACTERS)
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    place: int | None = None
    try:
        for row in rows:
            if not row:
                continue
            if place is None:
                if column not in row:
                    raise UnreadableTextError(_missing(rows.line_num, column, row))
                place = row.index(column)
            elif place >= len(row):
                raise UnreadableTextError(
                    f"line {rows.line_num} has {len(row)} fields, and {column!r} is the {place + 1}. one"
                )
            else:
                yield row[place]
    except csv.Error as error:
        raise UnreadableTextError(f"line {rows.line_num} can't be read as comma-separated values: {error}") from error


def _missing(line: int, column: str, there: list[str]) -> str:
    named = ", ".join(there[:_MOST_NAMED]) + (", ..." if len(there) > _MOST_NAMED else "")
    return f"line {line} has no column {column!r}, which text_column names; it has {named or 'none'}"


def _kind(value: Any) -> str:
    names = {
        bool: "a truth value",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "null")


def _encodable(line: int, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UnreadableTextError(
            f"line {line} has half of a character in it, \\u{ord(value[error.start]):04x}"
        ) from error
    return value
