"""Why a media object was not embedded: a closed set of codes, so that people can count, filter and retry by them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ReasonCode(StrEnum):
    """Every reason that the ledger, the invocations table and the run report may give."""

    # Found before anything was submitted.
    UNSUPPORTED_MEDIA = "unsupported_media"
    EMPTY_OBJECT = "empty_object"
    TOO_LARGE = "too_large"
    TOO_LONG = "too_long"
    TOO_SHORT = "too_short"
    NO_TRACK = "no_track"
    """There is no track of what the requested embedding options are made from."""
    UNSUPPORTED_RESOLUTION = "unsupported_resolution"
    # Said by S3 or Bedrock of this one object.
    CORRUPT = "corrupt"
    CONTENT_REFUSED = "content_refused"
    ACCESS_DENIED = "access_denied"
    INVALID_REQUEST = "invalid_request"
    SOURCE_GONE = "source_gone"
    CHANGED_DURING_RUN = "changed_during_run"
    MODEL_FAILED = "model_failed"
    SERVICE_ERROR = "service_error"
    # Found in what came back.
    OUTPUT_MISSING = "output_missing"
    OUTPUT_INVALID = "output_invalid"
    OUTPUT_INCOMPLETE = "output_incomplete"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    UNKNOWN_STATUS = "unknown_status"
    # Left for another run.
    NOT_FINISHED = "not_finished"
    LIMIT = "limit"
    DRY_RUN = "dry_run"
    BUDGET = "budget"
    NOT_APPROVED = "not_approved"
    RELEASED = "released"

    @property
    def is_transient(self) -> bool:
        """Whether the same content may succeed in a later run, so that it is tried again without being asked to."""
        return self in _TRANSIENT

    @property
    def is_tried_again_in_the_run(self) -> bool:
        """Whether another attempt may succeed within the same run, without a person or another listing."""
        return self in _TRIED_AGAIN_IN_THE_RUN


_TRANSIENT = frozenset(
    {
        ReasonCode.ACCESS_DENIED,
        # More often a setting that is wrong than the object, and a refusal costs nothing.
        ReasonCode.INVALID_REQUEST,
        ReasonCode.SOURCE_GONE,
        ReasonCode.CHANGED_DURING_RUN,
        ReasonCode.MODEL_FAILED,
        ReasonCode.SERVICE_ERROR,
        ReasonCode.OUTPUT_MISSING,
        ReasonCode.OUTPUT_INVALID,
        ReasonCode.OUTPUT_INCOMPLETE,
        ReasonCode.DEADLINE_EXCEEDED,
        ReasonCode.UNKNOWN_STATUS,
        ReasonCode.NOT_FINISHED,
        ReasonCode.LIMIT,
        ReasonCode.DRY_RUN,
        ReasonCode.BUDGET,
        ReasonCode.NOT_APPROVED,
        ReasonCode.RELEASED,
    }
)
_TRIED_AGAIN_IN_THE_RUN = frozenset(
    {
        ReasonCode.MODEL_FAILED,
        ReasonCode.SERVICE_ERROR,
        ReasonCode.OUTPUT_MISSING,
        ReasonCode.OUTPUT_INVALID,
        ReasonCode.OUTPUT_INCOMPLETE,
    }
)


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason code with the words that explain it, Bedrock's own where Bedrock gave any."""

    code: ReasonCode
    message: str
