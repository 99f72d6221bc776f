"""Finds what need not be bought: rows that the table has already, and outputs that lie in S3 already.

A merge that was killed between its two commits, a ledger that was lost, an invocation that ended after its deadline: in each
case the work is paid for and there, and only the ledger does not say so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from media_embeddings.identity import request_id
from media_embeddings.models import model_named
from media_embeddings.parts import CutText
from media_embeddings.planning import PlannedObject
from media_embeddings.reasons import ReasonCode
from media_embeddings.relations import database
from media_embeddings.storage import Storage, join_uri
from media_embeddings.tables import Tables

logger = logging.getLogger(__name__)

_PARALLEL_LISTS = 16
_FEW = 500
_PAGE = 1000
# An output that was refused is refused again. One that was missing may have come since. What an output itself may say of
# its media is among them; an invocation that failed for such a reason has none.
_UNUSABLE = (
    *(ReasonCode.OUTPUT_INVALID, ReasonCode.OUTPUT_INCOMPLETE),
    *(ReasonCode.CORRUPT, ReasonCode.CONTENT_REFUSED),
)


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
    """In the order given; with ``finished_output_uri`` where an output of the object as a whole is there."""
    recovered: tuple[RecoveredObject, ...]


def recover(
    storage: Storage, tables: Tables, model_name: str, outputs_uri: str, planned: Sequence[PlannedObject]
) -> Recovery:
    """Look for the rows of planned objects, and for outputs of requests for them as a whole.

    An attempt under a request id of its own, as a forced run makes it, is a purchase on purpose: rows of earlier attempts
    don't stand for it, nor do their outputs.
    """
    recovered = _recovered(tables, model_name, [one for one in planned if not _is_forced(one)])
    rest = [one for one in planned if one.embedding_key not in recovered]
    finished = _finished_outputs(storage, tables, outputs_uri, model_named(model_name).output_file, rest)
    return Recovery(
        planned=tuple(finished.get(one.request_id, one) for one in rest),
        recovered=tuple(recovered[one.embedding_key] for one in planned if one.embedding_key in recovered),
    )


def _is_forced(planned: PlannedObject) -> bool:
    return planned.request_id != request_id(planned.embedding_key, planned.attempt)


def _recovered(tables: Tables, model_name: str, planned: Sequence[PlannedObject]) -> Mapping[str, RecoveredObject]:
    by_key = {one.embedding_key: one for one in planned}
    columns = ("media_uri", "embedding_key", "request_id", "invocation_arn", "version_id", "end_sec")
    # After a change of parameters all objects have rows, and none under these keys: they are told apart while they are read.
    in_order = sorted(planned, key=lambda one: one.media.uri)
    uris, keys = [one.media.uri for one in in_order], [one.embedding_key for one in in_order]
    rows = tables.read_embeddings(model_name, uris, columns, keys)
    if rows.num_rows == 0:
        return {}
    with database(segments=rows) as connection:
        found = connection.execute(
            """SELECT embedding_key, CASE WHEN count(DISTINCT request_id) = 1 THEN any_value(request_id) END,
                      any_value(invocation_arn), any_value(version_id), count(*), max(end_sec)
               FROM segments GROUP BY ALL"""
        ).fetchall()
    # Rows of several requests are those of parts; the ledger names the attempt at the whole.
    return {key: RecoveredObject(by_key[key], name or by_key[key].request_id, *values) for key, name, *values in found}


def _finished_outputs(
    storage: Storage, tables: Tables, outputs_uri: str, output_file: str, planned: Sequence[PlannedObject]
) -> Mapping[str, PlannedObject]:
    """Return the planned objects of which an output is there, by the request id that they were planned with."""
    # Most are at their first attempt, of which no second object is made: there may be millions.
    attempts = {one.request_id: _attempts(one) for one in planned}
    wanted = [attempt.request_id for several in attempts.values() for attempt in several]
    there = _outputs_below(storage, outputs_uri, output_file, wanted)
    if not there:
        return {}
    unusable = _refused_outputs(tables, planned)
    return {
        planned_id: replace(attempt, finished_output_uri=there[attempt.request_id])
        for planned_id, several in attempts.items()
        for attempt in reversed(several)
        if attempt.request_id in there and attempt.request_id not in unusable
    }


def with_finished_parts(
    storage: Storage, tables: Tables, model_name: str, outputs_uri: str, planned: Sequence[PlannedObject]
) -> list[PlannedObject]:
    """Look for outputs of the parts of texts that were cut, of any attempt, and return the objects in the order given.

    What is there is not asked for again, also where other parts of its text are. Names of parts are made as they are looked
    for: there may be many millions, and few outputs.
    """
    cut = [one for one in planned if isinstance(one.parts, CutText)]
    number = sum(len(one.parts) * len(_attempts(one)) for one in cut)
    if number == 0:
        return list(planned)
    may_be_there = _known_folders(storage, outputs_uri, number)
    wanted = [name for one in cut for names in _part_names(one) for name in names if may_be_there(name)]
    there = _output_folders(storage, outputs_uri, model_named(model_name).output_file, wanted)
    unusable = _refused_outputs(tables, cut) if there else frozenset()
    usable = {name: folder for name, folder in there.items() if name not in unusable}
    return [_with_finished(one, usable) if usable else one for one in planned]


def _with_finished(planned: PlannedObject, usable: Mapping[str, str]) -> PlannedObject:
    if not isinstance(planned.parts, CutText):
        return planned
    finished: dict[int, tuple[str, str]] = {}
    for names in _part_names(planned):
        for place, name in enumerate(names):
            if name in usable:
                # The latest attempt comes first, and stands.
                finished.setdefault(place, (name, usable[name]))
    return replace(planned, parts=planned.parts.with_finished(finished)) if finished else planned


def _part_names(planned: PlannedObject) -> Iterator[Iterable[str]]:
    """Yield the request ids of a text's parts in each attempt, the latest first."""
    if isinstance(planned.parts, CutText):
        for attempt in _attempts(planned):
            yield planned.parts.named(attempt.request_id)


def _attempts(planned: PlannedObject) -> list[PlannedObject]:
    return [planned, *_earlier_attempts(planned)]


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


def _outputs_below(storage: Storage, outputs_uri: str, output_file: str, request_ids: Sequence[str]) -> dict[str, str]:
    """Return the folders of the outputs that are there, by request id."""
    may_be_there = _known_folders(storage, outputs_uri, len(request_ids))
    wanted = [name for name in request_ids if may_be_there(name)]
    return _output_folders(storage, outputs_uri, output_file, wanted)


def _output_folders(storage: Storage, outputs_uri: str, output_file: str, request_ids: Sequence[str]) -> dict[str, str]:
    with ThreadPoolExecutor(_PARALLEL_LISTS) as pool:
        folders = pool.map(lambda name: _output_folder(storage, join_uri(outputs_uri, name), output_file), request_ids)
        return {name: folder for name, folder in zip(request_ids, folders, strict=True) if folder is not None}


def _known_folders(storage: Storage, outputs_uri: str, number: int) -> Callable[[str], bool]:
    """Return what tells which requests may have an output, by one listing of all, if that takes fewer calls than one for each.

    :param number: how many requests are asked for.
    """
    if number <= _FEW:
        return lambda _: True
    names: set[str] = set()
    for page in storage.folders(f"{outputs_uri.rstrip('/')}/"):
        names.update(page)
        if len(names) > number * _PAGE:
            return lambda _: True
    return names.__contains__


def _output_folder(storage: Storage, folder_uri: str, output_file: str) -> str | None:
    outputs: Iterable[str] = (uri for uri in storage.list_uris(f"{folder_uri}/") if uri.endswith(f"/{output_file}"))
    # Without a token that is honoured there may be several; any of them will do.
    return next((uri.removesuffix(f"/{output_file}") for uri in outputs), None)
