"""Finds what need not be bought: rows that the table has already, and outputs that lie in S3 already.

A merge that was killed between its two commits, a ledger that was lost, an invocation that ended after its deadline: in each
case the work is paid for and there, and only the ledger does not say so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa

from media_embeddings.identity import request_id
from media_embeddings.planning import PlannedObject
from media_embeddings.reasons import ReasonCode
from media_embeddings.relations import database
from media_embeddings.storage import Storage, join_uri
from media_embeddings.tables import Tables

logger = logging.getLogger(__name__)

_PARALLEL_LISTS = 16
_FEW = 500
_PAGE = 1000
_OUTPUT = "output.json"
# An output that was refused is refused again. One that was missing may have come since.
_UNUSABLE = (ReasonCode.OUTPUT_INVALID, ReasonCode.OUTPUT_INCOMPLETE)


@dataclass(frozen=True, slots=True)
class RecoveredObject:
    """A media object whose rows the table has, though the ledger does not say so."""

    planned: PlannedObject
    request_id: str
    invocation_arn: str
    version_id: str | None
    segments: int
    duration_sec: float | None


@dataclass(frozen=True, slots=True)
class Recovery:
    """What is left to be embedded, and what is there already."""

    planned: tuple[PlannedObject, ...]
    """In the order given; with ``finished_output_uri`` where an output is there."""
    recovered: tuple[RecoveredObject, ...]


def recover(
    storage: Storage, tables: Tables, model_name: str, outputs_uri: str, planned: Sequence[PlannedObject]
) -> Recovery:
    """Look for the rows and outputs of planned objects.

    An attempt under a request id of its own, as a forced run makes it, is a purchase on purpose: rows of earlier attempts
    don't stand for it, nor do their outputs.
    """
    recovered = _recovered(tables, model_name, [one for one in planned if not _is_forced(one)])
    rest = [one for one in planned if one.embedding_key not in recovered]
    finished = _finished_outputs(storage, tables, outputs_uri, rest)
    return Recovery(
        planned=tuple(finished.get(one.request_id, one) for one in rest),
        recovered=tuple(recovered[one.embedding_key] for one in planned if one.embedding_key in recovered),
    )


def _is_forced(planned: PlannedObject) -> bool:
    return planned.request_id != request_id(planned.embedding_key, planned.attempt)


def _recovered(tables: Tables, model_name: str, planned: Sequence[PlannedObject]) -> Mapping[str, RecoveredObject]:
    by_key = {one.embedding_key: one for one in planned}
    columns = ("media_uri", "embedding_key", "request_id", "invocation_arn", "version_id", "end_sec")
    rows = tables.read_embeddings(model_name, sorted(one.media.uri for one in planned), columns)
    if rows.num_rows == 0:
        return {}
    wanted = pa.table({"embedding_key": pa.array(list(by_key), pa.string())})
    with database(segments=rows, wanted=wanted) as connection:
        found = connection.execute(
            """SELECT embedding_key, any_value(request_id), any_value(invocation_arn), any_value(version_id), count(*),
                      max(end_sec)
               FROM segments SEMI JOIN wanted USING (embedding_key) GROUP BY ALL"""
        ).fetchall()
    return {key: RecoveredObject(by_key[key], *values) for key, *values in found}


def _finished_outputs(
    storage: Storage, tables: Tables, outputs_uri: str, planned: Sequence[PlannedObject]
) -> Mapping[str, PlannedObject]:
    """Return the planned objects of which an output is there, by the request id that they were planned with."""
    # Most are at their first attempt, of which no second object is made: there may be millions.
    attempts = {one.request_id: [one, *_earlier_attempts(one)] for one in planned}
    wanted = [attempt.request_id for several in attempts.values() for attempt in several]
    there = _outputs_below(storage, outputs_uri, wanted)
    if not there:
        return {}
    unusable = _refused_outputs(tables, planned)
    return {
        planned_id: replace(attempt, finished_output_uri=there[attempt.request_id])
        for planned_id, several in attempts.items()
        for attempt in reversed(several)
        if attempt.request_id in there and attempt.request_id not in unusable
    }


def _earlier_attempts(planned: PlannedObject) -> list[PlannedObject]:
    """Return the attempts before the planned one, the latest first; a forced one does not ask for them."""
    if _is_forced(planned):
        return []
    return [
        replace(planned, attempt=number, request_id=request_id(planned.embedding_key, number))
        for number in range(planned.attempt - 1, 0, -1)
    ]


def _refused_outputs(tables: Tables, planned: Sequence[PlannedObject]) -> frozenset[str]:
    rows = tables.read_invocations(sorted(one.media.uri for one in planned), ("request_id", "reason_code"))
    refused = zip(rows["request_id"].to_pylist(), rows["reason_code"].to_pylist(), strict=True)
    return frozenset(name for name, code in refused if code in _UNUSABLE)


def _outputs_below(storage: Storage, outputs_uri: str, request_ids: Sequence[str]) -> dict[str, str]:
    """Return the folders of the outputs that are there, by request id."""
    if len(request_ids) > _FEW:
        request_ids = _those_with_a_folder(storage, outputs_uri, request_ids)
    with ThreadPoolExecutor(_PARALLEL_LISTS) as pool:
        folders = pool.map(lambda name: _output_folder(storage, join_uri(outputs_uri, name)), request_ids)
        return {name: folder for name, folder in zip(request_ids, folders, strict=True) if folder is not None}


def _those_with_a_folder(storage: Storage, outputs_uri: str, request_ids: Sequence[str]) -> Sequence[str]:
    """Return the request ids that have a folder, by one listing of all, if that takes fewer calls than one for each."""
    names: set[str] = set()
    for page in storage.folders(f"{outputs_uri.rstrip('/')}/"):
        names.update(page)
        if len(names) > len(request_ids) * _PAGE:
            return request_ids
    return [name for name in request_ids if name in names]


def _output_folder(storage: Storage, folder_uri: str) -> str | None:
    outputs: Iterable[str] = (uri for uri in storage.list_uris(f"{folder_uri}/") if uri.endswith(f"/{_OUTPUT}"))
    # Without a token that is honoured there may be several; any of them will do.
    return next((uri.removesuffix(f"/{_OUTPUT}") for uri in outputs), None)
