"""Reads what came of a batch: the outputs of its completed invocations, many at once, and why the others have none.

Outputs are read as streams, in the order of their objects and within a budget of bytes, so that memory is bounded whatever
their size and number.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from threading import Lock
from typing import Any

from media_embeddings.completeness import judge
from media_embeddings.identity import bedrock_parameters
from media_embeddings.in_order import Share, in_order
from media_embeddings.media import MediaObject
from media_embeddings.models.protocol import EmbeddingModel
from media_embeddings.outcomes import Invocation, InvocationStatus, verdict
from media_embeddings.output_folder import OutputFolder
from media_embeddings.output_rows import OutputInvalidError
from media_embeddings.part_parsers import PartParsers
from media_embeddings.parts import Part
from media_embeddings.planning import PlannedObject, Status
from media_embeddings.reasons import Reason, ReasonCode
from media_embeddings.results import SegmentRows, joined
from media_embeddings.run_folder import BatchFolder
from media_embeddings.storage import ObjectNotFoundError, ObjectUnreadableError, Storage

logger = logging.getLogger(__name__)

# Fewer than an S3 client has connections.
_PARALLEL_READS = 8
# Of outputs, whose vectors take up about a fifth of their text.
_BYTES_UNDER_WAY = 192 * 1024**2


@dataclass(frozen=True, slots=True)
class PartOutcome:
    """What became of one request. ``status`` is ``embedded`` where its output may be merged, whatever became of others."""

    part: Part
    invocation: Invocation | None
    ended: InvocationStatus | None
    status: Status
    reason: Reason | None = None

    @property
    def usable_output_uri(self) -> str | None:
        """Return the folder of an output that need not be bought again."""
        return self.ended.output_uri if self.ended is not None and self.status is Status.EMBEDDED else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one object of a batch."""

    planned: PlannedObject
    parts: tuple[PartOutcome, ...]
    """One for each of its requests, in their order."""
    status: Status
    reason: Reason | None = None
    version_id: str | None = None
    absent_options: tuple[str, ...] = ()
    segments: int | None = None
    duration_sec: float | None = None

    @property
    def invocation_arn(self) -> str | None:
        """Return the invocation of its first request."""
        invocation = self.parts[0].invocation
        return invocation.invocation_arn if invocation else None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one request has given."""

    outcome: PartOutcome
    rows: SegmentRows | None = None
    absent_options: tuple[str, ...] = ()
    version_id: str | None = None
    """Of the object, where this was the last of its requests."""


class _UnusableError(Exception):
    """A completed invocation has nothing that may be merged."""

    def __init__(self, code: ReasonCode, message: str) -> None:
        super().__init__(message)
        self.reason = Reason(code, message)


class BatchOutputs:
    """What came of the requests of a batch.

    :param planned: the batch's objects.
    :param waiting_until: how long an output is waited for that is not there yet although its invocation is completed, as
        :func:`time.monotonic` has it.
    """

    def __init__(
        self,
        storage: Storage,
        model: EmbeddingModel,
        folder: BatchFolder,
        planned: Sequence[PlannedObject],
        waiting_until: float,
    ) -> None:
        self._storage, self._model, self._waiting_until = storage, model, waiting_until
        self._planned = sorted(planned, key=lambda one: one.media.uri)
        self._invocations = {
            value["request_id"]: Invocation.from_dict(value) for value in _read_lines(storage, folder.invocations_uri)
        }
        self._statuses = {
            value["request_id"]: InvocationStatus.from_dict(value)
            for value in _read_lines(storage, folder.statuses_uri)
        }
        # What can't be read as a stream takes several times its size; one at a time does.
        self._whole = Lock()

    def read(self) -> Generator[tuple[Outcome, SegmentRows | None]]:
        """Yield what became of each object, with its rows where it is embedded, in the order of their URIs.

        What is not there yet is left for the end, so that nothing waits for it but what else is late. The rows are not to
        be kept. The iterator has to be closed if it is not read to its end.
        """
        waiting: Sequence[PlannedObject] = self._planned
        with PartParsers() as parsers:
            while waiting:
                late = []
                requests = ((one, place) for one in waiting for place in range(len(one.requests)))
                read = partial(self._read_one, parsers)
                found = in_order(read, requests, threads=_PARALLEL_READS, most_bytes=_BYTES_UNDER_WAY)
                with closing(found):
                    for one in waiting:
                        answers = list(islice(found, len(one.requests)))
                        there = [answer for answer in answers if answer is not None]
                        if len(there) < len(answers):
                            late.append(one)
                        else:
                            yield _gathered(one, there)
                waiting = late
                if late:
                    time.sleep(max(0.0, min(self._waiting_until - time.monotonic(), 1.0)))

    def _read_one(self, parsers: PartParsers, request: tuple[PlannedObject, int], share: Share) -> _Answer | None:
        """Return None for what is not there yet."""
        one, place = request
        part, is_last = one.requests[place], place == len(one.requests) - 1
        invocation, ended = self._invocations.get(part.request_id), self._statuses.get(part.request_id)
        if (found := verdict(invocation, ended)) is not None:
            return _Answer(PartOutcome(part, invocation, ended, found.status, found.reason))
        assert ended is not None  # noqa: S101 - a request without a verdict has a completed invocation
        try:
            rows = self._rows(
                one.media, ended, OutputFolder(self._storage, ended.output_uri, share, parsers, self._whole)
            )
            if rows is None:
                return None
            absent = _absent_options(rows, self._model, one)
            version_id = _unchanged_version(self._storage, one.media) if is_last else None
        except _UnusableError as error:
            return _Answer(PartOutcome(part, invocation, ended, Status.FAILED, error.reason))
        outcome = PartOutcome(part, invocation, ended, Status.EMBEDDED)
        return _Answer(outcome, _placed(rows, part), absent, version_id)

    def _rows(self, media: MediaObject, ended: InvocationStatus, folder: OutputFolder) -> SegmentRows | None:
        is_last_look = time.monotonic() >= self._waiting_until
        try:
            return self._model.read_output(folder, media.media_type)
        except ObjectNotFoundError as error:
            if not is_last_look:
                return None
            message = f"invocation {ended.invocation_arn} is Completed, but there is no {error}"
            raise _UnusableError(ReasonCode.OUTPUT_MISSING, message) from error
        except ObjectUnreadableError as error:
            # It stays, and is taken as soon as it can be read: nothing is bought for it.
            raise _UnusableError(ReasonCode.ACCESS_DENIED, str(error)) from error
        except OutputInvalidError as error:
            raise _UnusableError(error.reason.code, f"{ended.output_uri}: {error.reason.message}") from error


def _gathered(planned: PlannedObject, answers: Sequence[_Answer]) -> tuple[Outcome, SegmentRows | None]:
    """Return what became of an object: embedded if all its requests have given rows.

    As long as one is unfinished the object is, whatever became of the others: another attempt would buy anew what is still
    under way.
    """
    parts = tuple(answer.outcome for answer in answers)
    for status in (Status.DEFERRED, Status.FAILED):
        first = next((one for one in parts if one.status is status), None)
        if first is not None:
            return Outcome(planned, parts, status, first.reason), None
    rows = joined([answer.rows for answer in answers if answer.rows is not None])
    outcome = Outcome(
        planned,
        parts,
        Status.EMBEDDED,
        version_id=answers[-1].version_id,
        absent_options=answers[0].absent_options,
        segments=len(rows.embedding),
        duration_sec=rows.duration_sec,
    )
    return outcome, rows


def _placed(rows: SegmentRows, part: Part) -> SegmentRows:
    """Return rows with the place of the text that they are for, unless the model says it itself."""
    number = len(rows.embedding)
    if part.start_char is not None and rows.start_char is None:
        rows = replace(rows, start_char=[part.start_char] * number, end_char=[part.end_char] * number)
    if part.start_sec is not None:
        rows = replace(rows, start_sec=[part.start_sec] * number, end_sec=[part.end_sec] * number)
    return rows


def _read_lines(storage: Storage, uri: str) -> Iterable[Mapping[str, Any]]:
    """Return the lines of a file that an earlier task writes, and nothing where that task did not come so far."""
    try:
        return list(storage.read_json_lines(uri))
    except ObjectNotFoundError:
        logger.warning("%s is not there: the task that writes it ended before", uri)
        return []


def _absent_options(rows: SegmentRows, model: EmbeddingModel, planned: PlannedObject) -> tuple[str, ...]:
    """Return the options that the media have no track for, of rows that hold what was asked for otherwise."""
    rules = model.segment_rules(planned.media.media_type, bedrock_parameters(planned.parameters))
    judgement = judge(rows, rules)
    if judgement.violation is not None:
        raise _UnusableError(judgement.violation.code, judgement.violation.message)
    return judgement.absent_options


def _unchanged_version(storage: Storage, media: MediaObject) -> str | None:
    """Return the version id of an object that is still the one that was listed: Bedrock takes no version id."""
    try:
        head = storage.head(media.uri)
    except ObjectUnreadableError as error:
        raise _UnusableError(ReasonCode.ACCESS_DENIED, str(error)) from error
    except ObjectNotFoundError as error:
        message = "the object was deleted while it was being embedded"
        raise _UnusableError(ReasonCode.SOURCE_GONE, message) from error
    if head.etag != media.etag:
        message = f"the object was replaced while it was being embedded (ETag {media.etag}, now {head.etag})"
        raise _UnusableError(ReasonCode.CHANGED_DURING_RUN, message)
    return head.version_id
