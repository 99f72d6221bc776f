"""Reads what came of a batch: the outputs of its completed invocations, many at once, and why the others have none.

Outputs are read as streams, in the order of their objects and within a budget of bytes, so that memory is bounded whatever
their size and number.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from threading import Lock
from typing import Any

from media_embeddings.completeness import judge
from media_embeddings.in_order import Share, in_order
from media_embeddings.media import MediaObject
from media_embeddings.models.protocol import EmbeddingModel
from media_embeddings.outcomes import Invocation, InvocationStatus, verdict
from media_embeddings.output_folder import OutputFolder
from media_embeddings.planning import PlannedObject, Status
from media_embeddings.reasons import Reason, ReasonCode
from media_embeddings.results import OutputInvalidError, SegmentRows
from media_embeddings.run_folder import BatchFolder
from media_embeddings.storage import ObjectNotFoundError, ObjectUnreadableError, Storage

logger = logging.getLogger(__name__)

# Fewer than an S3 client has connections.
_PARALLEL_READS = 8
# Of outputs, whose vectors take up about a fifth of their text.
_BYTES_UNDER_WAY = 192 * 1024**2


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one object of a batch."""

    planned: PlannedObject
    invocation: Invocation | None
    ended: InvocationStatus | None
    status: Status
    reason: Reason | None = None
    version_id: str | None = None
    absent_options: tuple[str, ...] = ()
    segments: int | None = None
    duration_sec: float | None = None


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
        while waiting:
            late = []
            found = in_order(self._read_one, waiting, threads=_PARALLEL_READS, most_bytes=_BYTES_UNDER_WAY)
            with closing(found):
                for one, outcome in zip(waiting, found, strict=True):
                    if outcome is None:
                        late.append(one)
                    else:
                        yield outcome
            waiting = late
            if late:
                time.sleep(max(0.0, min(self._waiting_until - time.monotonic(), 1.0)))

    def _read_one(self, one: PlannedObject, share: Share) -> tuple[Outcome, SegmentRows | None] | None:
        """Return None for what is not there yet."""
        invocation, ended = self._invocations.get(one.request_id), self._statuses.get(one.request_id)
        if (found := verdict(invocation, ended)) is not None:
            return Outcome(one, invocation, ended, found.status, found.reason), None
        assert ended is not None  # noqa: S101 - a request without a verdict has a completed invocation
        try:
            rows = self._rows(one.media, ended, share)
            if rows is None:
                return None
            absent = _absent_options(rows, self._model, one)
            version_id = _unchanged_version(self._storage, one.media)
        except _UnusableError as error:
            return Outcome(one, invocation, ended, Status.FAILED, error.reason), None
        outcome = Outcome(
            one,
            invocation,
            ended,
            Status.EMBEDDED,
            version_id=version_id,
            absent_options=absent,
            segments=len(rows.embedding),
            duration_sec=rows.duration_sec,
        )
        return outcome, rows

    def _rows(self, media: MediaObject, ended: InvocationStatus, share: Share) -> SegmentRows | None:
        folder = OutputFolder(self._storage, ended.output_uri, share, self._whole)
        is_last_look = time.monotonic() >= self._waiting_until
        try:
            return self._model.read_output(folder, media.media_type)
        except ObjectNotFoundError as error:
            if not is_last_look:
                return None
            message = f"invocation {ended.invocation_arn} is Completed, but there is no {error}"
            raise _UnusableError(ReasonCode.OUTPUT_MISSING, message) from error
        except OutputInvalidError as error:
            raise _UnusableError(error.reason.code, f"{ended.output_uri}: {error.reason.message}") from error


def _read_lines(storage: Storage, uri: str) -> Iterable[Mapping[str, Any]]:
    """Return the lines of a file that an earlier task writes, and nothing where that task did not come so far."""
    try:
        return list(storage.read_json_lines(uri))
    except ObjectNotFoundError:
        logger.warning("%s is not there: the task that writes it ended before", uri)
        return []


def _absent_options(rows: SegmentRows, model: EmbeddingModel, planned: PlannedObject) -> tuple[str, ...]:
    """Return the options that the media have no track for, of rows that hold what was asked for otherwise."""
    rules = model.segment_rules(planned.media.media_type, json.loads(planned.parameters))
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
