"""Tells from a listing alone whether a model can take an object: no request is spent on what is bound to be refused."""

from __future__ import annotations

from media_embeddings.media import MediaFacts, MediaObject, MediaType
from media_embeddings.models.protocol import Limits
from media_embeddings.reasons import Reason, ReasonCode

# No tokenizer is published. A token is seldom longer than a long word, and a character of UTF-8 has up to four bytes:
# a text of more bytes than this for each token is over the limit whatever it says. Others are for Bedrock to judge.
_MOST_BYTES_A_TOKEN = 64


def rejection_by_size(media: MediaObject, limits: Limits) -> Reason | None:
    """Return why an object's size rules it out, or None."""
    if media.size_bytes == 0:
        return Reason(ReasonCode.EMPTY_OBJECT, "the object has no bytes")
    if media.media_type is MediaType.TEXT:
        return _rejection_of_text(media, limits)
    return _rejection_of_file(media, limits)


def _rejection_of_text(media: MediaObject, limits: Limits) -> Reason | None:
    if limits.text.tokens is None:
        return _rejection_of_file(media, limits)
    most = limits.text.tokens * _MOST_BYTES_A_TOKEN
    if media.size_bytes > most:
        return Reason(
            ReasonCode.TOO_LONG,
            f"a text of {media.size_bytes} bytes is longer than the model's {limits.text.tokens} tokens "
            f"(more than {most} bytes); split it",
        )
    return None


def _rejection_of_file(media: MediaObject, limits: Limits) -> Reason | None:
    most = limits.size_bytes[media.media_type]
    if media.size_bytes > most:
        return Reason(
            ReasonCode.TOO_LARGE,
            f"{media.size_bytes} bytes are more than the {most} bytes that the model takes of {media.media_type}",
        )
    return None


def rejection_by_facts(media: MediaObject, facts: MediaFacts, limits: Limits) -> Reason | None:
    """Return why what an object's header says rules it out, or None."""
    most = limits.duration_sec.get(media.media_type)
    if most is not None and facts.duration_sec is not None and facts.duration_sec > most:
        return Reason(
            ReasonCode.TOO_LONG, f"{facts.duration_sec:g} s are more than the {most:g} s that the model takes; split it"
        )
    return None
