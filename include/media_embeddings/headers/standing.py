"""Whether what an earlier run has said of an object's header still holds, so that it is not read again every night. Pure."""

from __future__ import annotations

from media_embeddings.media import MediaType
from media_embeddings.models.limits import limit_phrases
from media_embeddings.models.protocol import Limits
from media_embeddings.reasons import Reason, ReasonCode

_BY_LIMITS = frozenset(
    {
        ReasonCode.TOO_LONG,
        ReasonCode.TOO_SHORT,
        ReasonCode.UNSUPPORTED_RESOLUTION,
        ReasonCode.UNSUPPORTED_MEDIA,
    }
)


def header_rejection_stands(
    reason: Reason, media_type: MediaType, limits: Limits, *, rejects_unconfirmed: bool
) -> bool:
    """Return whether an object of the same content and parameters would be rejected again.

    Damage and missing tracks are the content's own. What a limit has ruled out is ruled out as long as the limit has the
    same number and is one that rejects: the reason names it, in words that this very code has written. Were they written
    otherwise, the header is read once more.
    """
    if reason.code in (ReasonCode.CORRUPT, ReasonCode.NO_TRACK):
        return media_type is not MediaType.TEXT
    if reason.code not in _BY_LIMITS:
        return False
    if suffix_phrase(media_type) in reason.message:
        return True
    phrases = limit_phrases(media_type, limits)
    return any(
        phrase in reason.message
        for limit, phrase in phrases.items()
        if rejects_unconfirmed or limit not in limits.unconfirmed
    )


def suffix_phrase(media_type: MediaType) -> str:
    """Return the words of a reason that say that content and suffix are not of one kind."""
    return f"its suffix says {media_type}"
