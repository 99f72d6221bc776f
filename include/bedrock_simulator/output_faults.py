"""What the output faults do to the rows and files of an output."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .faults import Fault

Document = dict[str, Any]


def _wrong_dimension(document: Document, fault: Fault) -> Document:
    def resized(values: list[float]) -> list[float]:
        return (values * (fault.dimension // len(values) + 1))[: fault.dimension]

    return {"data": [{**row, "embedding": resized(row["embedding"])} for row in document["data"]]}


def _non_finite(document: Document, fault: Fault) -> Document:
    rows = [dict(row) for row in document["data"]]
    if rows:
        struck = rows[len(rows) // 2]
        struck["embedding"] = [float(fault.value), *struck["embedding"][1:]]
    return {"data": rows}


def _zero_vector(document: Document, _: Fault) -> Document:
    rows = [dict(row) for row in document["data"]]
    if rows:
        struck = rows[len(rows) // 2]
        struck["embedding"] = [0.0] * len(struck["embedding"])
    return {"data": rows}


def _missing_option(document: Document, fault: Fault) -> Document:
    return {"data": [row for row in document["data"] if row.get("embeddingOption") != fault.option]}


def _middle_start(document: Document) -> float | None:
    starts = sorted(
        {row["startSec"] for row in document["data"] if row.get("embeddingScope") != "asset" and "startSec" in row}
    )
    return starts[len(starts) // 2] if len(starts) > 2 else None


def _missing_segment(document: Document, _: Fault) -> Document:
    start = _middle_start(document)
    return {
        "data": [
            row
            for row in document["data"]
            if start is None or row.get("embeddingScope") == "asset" or row.get("startSec") != start
        ]
    }


def _overlapping_segment(document: Document, _: Fault) -> Document:
    rows = [dict(row) for row in document["data"]]
    start = _middle_start(document)
    for row in rows:
        if start is not None and row.get("startSec") == start and row.get("embeddingScope") != "asset":
            earlier = [one["startSec"] for one in rows if one.get("startSec", start) < start]
            # Nearly: two rows of the very same time would be the same segment twice.
            row["startSec"] = max(earlier) + 0.001
    return {"data": rows}


def _segment_failed(document: Document, fault: Fault) -> Document:
    rows = [dict(row) for row in document["data"]]
    if rows:
        rows[len(rows) // 2]["failure"] = fault.reason
    return {"data": rows}


def _without_data(document: Document, _: Fault) -> Document:
    return {"result": document["data"]}


_DOCUMENT_FAULTS: dict[str, Callable[[Document, Fault], Document]] = {
    "wrong_dimension": _wrong_dimension,
    "non_finite": _non_finite,
    "output_without_data": _without_data,
    "zero_vector": _zero_vector,
    "missing_option": _missing_option,
    "missing_segment": _missing_segment,
    "overlapping_segment": _overlapping_segment,
    "segment_failed": _segment_failed,
}

_CONTENT_FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "output_truncated": lambda content: content[: len(content) * 2 // 3],
    "output_malformed": lambda content: b"<Error>" + content,
}


def struck_document(document: Document, faults: Iterable[Fault]) -> Document:
    """Return the rows of an output after the faults that change rows."""
    for fault in faults:
        if fault.kind in _DOCUMENT_FAULTS:
            document = _DOCUMENT_FAULTS[fault.kind](document, fault)
    return document


def struck_files(files: dict[str, bytes], main: str, faults: Iterable[Fault]) -> dict[str, bytes]:
    """Return the files of an output after the faults that change content, without the main one where it shall be missing."""
    faults = list(faults)
    for fault in faults:
        if fault.kind in _CONTENT_FAULTS:
            files = {name: _CONTENT_FAULTS[fault.kind](content) for name, content in files.items()}
    is_missing = any(fault.kind == "output_missing" for fault in faults)
    return {name: content for name, content in files.items() if not (is_missing and name == main)}
