"""Tells from listing and header whether a model can take an object: no request is spent on what is bound to be refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from media_embeddings.media import MediaFacts, MediaObject, MediaType
from media_embeddings.models.protocol import Limits
from media_embeddings.reasons import Reason, ReasonCode

# The tracks of a file seldom end together, and encoders fill up the last packet: a film of two hours may be said to last
# some hundredths of a second more.
_DURATION_TOLERANCE_SEC = 1.0
_SHORT_TOLERANCE_SEC = 0.1
MOST_TEXT_BYTES = 32 * 1024**2
"""What is sent with the request is read into memory: some 200,000 parts for Marengo 2.7, and more than any book."""


def rejection_by_size(media: MediaObject, limits: Limits) -> Reason | None:
    """Return why an object's size rules it out, or None."""
    if media.size_bytes == 0:
        return Reason(ReasonCode.EMPTY_OBJECT, "the object has no bytes")
    if media.media_type is MediaType.TEXT:
        return _rejection_of_text(media, limits)
    return _rejection_of_file(media, limits)


def _rejection_of_text(media: MediaObject, limits: Limits) -> Reason | None:
    if limits.text.is_read_from_s3:
        return _rejection_of_file(media, limits)
    if media.size_bytes > MOST_TEXT_BYTES:
        return Reason(
            ReasonCode.TOO_LARGE,
            f"a text of {media.size_bytes} bytes is more than the {MOST_TEXT_BYTES} bytes that are read into memory to be "
            "cut into parts; split it into several objects",
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


@dataclass(frozen=True, slots=True)
class Finding:
    """A limit that an object is outside of."""

    limit: str
    """The limit's name in :class:`~media_embeddings.models.protocol.Limits`."""
    reason: Reason


def findings_by_facts(media: MediaObject, facts: MediaFacts, limits: Limits) -> list[Finding]:
    """Return the limits that an object is outside of by what its header says; what it does not say is within them."""
    found = [*_of_duration(media.media_type, facts, limits), *_of_size(media.media_type, facts, limits)]
    if media.media_type is MediaType.IMAGE and facts.kind is MediaType.IMAGE and limits.image_formats:
        found += _of_format(facts, limits)
    return found


def rejection_by_facts(media: MediaObject, facts: MediaFacts, limits: Limits) -> Reason | None:
    """Return why what an object's header says rules it out, or None; limits that AWS does not state rule nothing out."""
    confirmed = (one.reason for one in findings_by_facts(media, facts, limits) if one.limit not in limits.unconfirmed)
    return next(confirmed, None)


def limit_phrases(media_type: MediaType, limits: Limits) -> dict[str, str]:
    """Return the words in which a reason names each limit on a media type, by the limit's name.

    They hold its number, so that a reason can be compared with the limits of today.
    """
    found: dict[str, str] = {}
    if (longest := limits.duration_sec.get(media_type)) is not None:
        found["duration_sec"] = f"more than the {longest:g} s that the model takes of {media_type}"
    if (shortest := limits.least_duration_sec.get(media_type)) is not None:
        found["least_duration_sec"] = f"less than the {shortest:g} s that the model takes of {media_type}"
    if (least := limits.least_pixels.get(media_type)) is not None:
        found["least_pixels"] = f"less than the {least[0]}x{least[1]} that the model takes of {media_type}"
    if (greatest := limits.greatest_pixels.get(media_type)) is not None:
        found["greatest_pixels"] = f"more than the {greatest[0]}x{greatest[1]} that the model takes of {media_type}"
    if (aspect := limits.greatest_aspect.get(media_type)) is not None:
        found["greatest_aspect"] = f"beyond the proportion of 1:{aspect:g} that the model takes of {media_type}"
    if media_type is MediaType.IMAGE and limits.image_formats:
        found["image_formats"] = f"the model takes images as {', '.join(sorted(limits.image_formats))}"
    return found


def _of_duration(media_type: MediaType, facts: MediaFacts, limits: Limits) -> Iterator[Finding]:
    seconds = facts.duration_sec
    if seconds is None or facts.duration_is_estimated:
        return
    phrases = limit_phrases(media_type, limits)
    most, least = limits.duration_sec.get(media_type), limits.least_duration_sec.get(media_type)
    if most is not None and seconds > most + _DURATION_TOLERANCE_SEC:
        reason = Reason(ReasonCode.TOO_LONG, f"{seconds:.1f} s are {phrases['duration_sec']}; split it")
        yield Finding("duration_sec", reason)
    if least is not None and seconds < least - _SHORT_TOLERANCE_SEC:
        reason = Reason(ReasonCode.TOO_SHORT, f"{seconds:.1f} s are {phrases['least_duration_sec']}")
        yield Finding("least_duration_sec", reason)


def _of_size(media_type: MediaType, facts: MediaFacts, limits: Limits) -> Iterator[Finding]:
    if not facts.width or not facts.height:
        return
    # A picture may be shown turned by 90 degrees, which its size does not tell.
    longer, shorter = max(facts.width, facts.height), min(facts.width, facts.height)
    least, greatest = limits.least_pixels.get(media_type), limits.greatest_pixels.get(media_type)
    aspect = limits.greatest_aspect.get(media_type)
    is_outside = {
        "least_pixels": least is not None and (longer < least[0] or shorter < least[1]),
        "greatest_pixels": greatest is not None and (longer > greatest[0] or shorter > greatest[1]),
        "greatest_aspect": aspect is not None and longer > aspect * shorter,
    }
    phrases = limit_phrases(media_type, limits)
    for limit, is_found in is_outside.items():
        if is_found:
            message = f"{facts.width}x{facts.height} pixels are {phrases[limit]}"
            yield Finding(limit, Reason(ReasonCode.UNSUPPORTED_RESOLUTION, message))


def _of_format(facts: MediaFacts, limits: Limits) -> Iterator[Finding]:
    if facts.container is not None and facts.container not in limits.image_formats:
        phrase = limit_phrases(MediaType.IMAGE, limits)["image_formats"]
        message = f"the image is {facts.container}, whatever its suffix says; {phrase}: convert it"
        yield Finding("image_formats", Reason(ReasonCode.UNSUPPORTED_MEDIA, message))
