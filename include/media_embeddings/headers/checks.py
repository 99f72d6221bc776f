"""A step of planning: reads the headers of what is to be embedded, and settles what the model can't take."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from media_embeddings.headers.content import Span
from media_embeddings.headers.content_checks import rejection_by_content
from media_embeddings.headers.parsers import Parsers
from media_embeddings.headers.ranged_reading import MOST_BYTES, Header, read_header
from media_embeddings.in_order import Share, in_order
from media_embeddings.media import MediaObject, MediaType
from media_embeddings.models.limits import Finding, findings_by_facts
from media_embeddings.planning import PlannedObject, Purpose, SettledObject, Status
from media_embeddings.reasons import Reason, ReasonCode
from media_embeddings.storage import (
    MOST_CONNECTIONS,
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectUnreadableError,
    Storage,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HeaderChecks:
    """What is left to be embedded, with facts; and what is not."""

    planned: tuple[PlannedObject, ...]
    """In the order given."""
    settled: tuple[SettledObject, ...] = ()
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Checked:
    """One object with what was found out of it."""

    planned: PlannedObject
    header: Header | None
    verdict: tuple[Status, Reason] | None
    warnings: tuple[Finding, ...] = ()


@dataclass(slots=True)
class _Seen:
    """How many objects something was found of, and one of them."""

    example: str
    count: int = 0


@dataclass(slots=True)
class _Notices:
    """What a person should know of the objects that are embedded."""

    model_name: str
    outside: dict[str, _Seen] = field(default_factory=dict)
    unknown: _Seen | None = None

    def add(self, checked: _Checked) -> None:
        """Count an object that goes on."""
        uri = checked.planned.media.uri
        for finding in checked.warnings:
            self.outside.setdefault(finding.limit, _Seen(f"{uri}: {finding.reason.message}")).count += 1
        if checked.header is not None and checked.header.facts is None:
            self.unknown = self.unknown or _Seen(uri)
            self.unknown.count += 1

    def sentences(self) -> Iterable[str]:
        """Yield a sentence for each thing found."""
        for limit, seen in sorted(self.outside.items()):
            yield (
                f"{seen.count} of the objects to be embedded are outside of {self.model_name}'s {limit}, which its maker "
                f"states but AWS does not; they are sent. Set unconfirmed_limits: reject to keep them back. One is "
                f"{seen.example}"
            )
        if self.unknown is not None:
            yield (
                f"{self.unknown.count} of the objects to be embedded have a header that can't be read; they are sent "
                f"without having been checked. One is {self.unknown.example}"
            )


def check_headers(storage: Storage, purpose: Purpose, planned: Sequence[PlannedObject]) -> HeaderChecks:
    """Read the headers of video, audio and images, side by side, and settle what the model can't take.

    Nothing is read of texts, nor of objects whose output is there already. An object that is gone, was replaced or is
    refused is settled as failed.

    :raises botocore.exceptions.ClientError: where S3 fails in a way that may pass; as do BotoCoreErrors.
    """
    if not purpose.reads_headers or not any(_is_read(one) for one in planned):
        return HeaderChecks(tuple(planned))
    # Each waits for S3 most of the time. More at once than there are connections would only be thrown away.
    threads = min(MOST_CONNECTIONS, getattr(storage.client.meta.config, "max_pool_connections", 10))
    notices = _Notices(purpose.model.name)
    going_on: list[PlannedObject] = []
    settled: list[SettledObject] = []
    requests = bytes_read = 0
    with Parsers() as parsers:
        checker = _Checker(storage, purpose, parsers)
        for checked in in_order(checker.check, planned, threads=threads, most_bytes=threads * MOST_BYTES):
            if checked.header is not None:
                requests += checked.header.requests
                bytes_read += checked.header.bytes_read
            if checked.verdict is not None:
                settled.append(_settled(checked.planned, *checked.verdict))
            else:
                notices.add(checked)
                going_on.append(checked.planned)
    logger.info(
        "read the headers of %d objects by %d requests of %d bytes in all; %d can't be embedded",
        sum(_is_read(one) for one in planned),
        requests,
        bytes_read,
        len(settled),
    )
    return HeaderChecks(tuple(going_on), tuple(settled), tuple(notices.sentences()))


def _is_read(planned: PlannedObject) -> bool:
    return planned.media.media_type is not MediaType.TEXT and planned.finished_output_uri is None


@dataclass(frozen=True, slots=True)
class _Checker:
    storage: Storage
    purpose: Purpose
    parsers: Parsers

    def check(self, planned: PlannedObject, _share: Share) -> _Checked:
        """Read the header of one object and judge it."""
        if not _is_read(planned):
            return _Checked(planned, None, None)
        try:
            header = read_header(planned.media, self._fetch, self.parsers)
        except ObjectNotFoundError:
            reason = Reason(ReasonCode.SOURCE_GONE, "the object was deleted after it had been listed")
        except ObjectChangedError:
            reason = Reason(ReasonCode.CHANGED_DURING_RUN, "the object was replaced after it had been listed")
        except ObjectUnreadableError as error:
            reason = Reason(ReasonCode.ACCESS_DENIED, str(error))
        else:
            return self._judged(replace(planned, facts=header.facts), header)
        return _Checked(planned, None, (Status.FAILED, reason))

    def _fetch(self, media: MediaObject, span: Span) -> bytes:
        return self.storage.read_range(media.uri, span.start, span.end, etag=media.etag)

    def _judged(self, planned: PlannedObject, header: Header) -> _Checked:
        model, media = self.purpose.model, planned.media
        parameters = json.loads(planned.parameters)
        options = model.segment_rules(media.media_type, parameters).options
        reason = rejection_by_content(media, header, options)
        warnings: list[Finding] = []
        if reason is None and header.facts is not None:
            reason = model.rejection_by_facts(media, header.facts, parameters)
            warnings = findings_by_facts(media, header.facts, model.limits)
            if reason is None and warnings and self.purpose.rejects_unconfirmed:
                reason = warnings[0].reason
        return _Checked(planned, header, (Status.REJECTED, reason) if reason else None, tuple(warnings))


def _settled(planned: PlannedObject, status: Status, reason: Reason) -> SettledObject:
    media = planned.media
    return SettledObject(
        media_uri=media.uri,
        media_type=media.media_type,
        status=status,
        reason=reason,
        etag=media.etag,
        size_bytes=media.size_bytes,
        last_modified=media.last_modified,
        embedding_key=planned.embedding_key,
        # What is rejected was not attempted; what failed counts, so that it is quarantined some day.
        attempts=planned.attempt if status is Status.FAILED else planned.attempt - 1,
        is_news=True,
        duration_sec=planned.facts.duration_sec if planned.facts else None,
    )
