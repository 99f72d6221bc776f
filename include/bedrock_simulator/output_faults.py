"""What the output faults do to an ``output.json``."""

from __future__ import annotations

import json
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
}

_CONTENT_FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "output_truncated": lambda content: content[: len(content) * 2 // 3],
    "output_malformed": lambda content: b"<Error>" + content,
}


def output_content(document: Document, faults: Iterable[Fault]) -> bytes | None:
    """Return the bytes of ``output.json`` after the faults, or None where it shall be missing."""
    faults = list(faults)
    for fault in faults:
        if fault.kind in _DOCUMENT_FAULTS:
            document = _DOCUMENT_FAULTS[fault.kind](document, fault)
    content = json.dumps(document, separators=(",", ":")).encode()
    for fault in faults:
        if fault.kind in _CONTENT_FAULTS:
            content = _CONTENT_FAULTS[fault.kind](content)
    return None if any(fault.kind == "output_missing" for fault in faults) else content
