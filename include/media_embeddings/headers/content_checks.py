"""Judges what a header says: whether the content is what its suffix says, and has what the requested options need. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from media_embeddings.headers.ranged_reading import Header
from media_embeddings.headers.standing import suffix_phrase
from media_embeddings.media import MediaFacts, MediaObject, MediaType
from media_embeddings.models.segments import Track
from media_embeddings.reasons import Reason, ReasonCode

_WORDS: Mapping[MediaType, str] = {MediaType.VIDEO: "a video", MediaType.AUDIO: "audio", MediaType.IMAGE: "an image"}


def rejection_by_content(media: MediaObject, header: Header, options: Mapping[str, Track]) -> Reason | None:
    """Return why an object can't be embedded whatever the model's limits are, or None.

    :param options: the embedding options that are requested of it, with the track that each is made from.
    """
    if header.damage is not None:
        return Reason(
            ReasonCode.CORRUPT, f"{header.damage}; the object is damaged or no {media.media_type}: replace it"
        )
    facts = header.facts
    if facts is None:
        return None
    return _rejection_by_kind(media, facts) or _rejection_by_tracks(facts, options)


def _rejection_by_kind(media: MediaObject, facts: MediaFacts) -> Reason | None:
    if facts.kind is not None:
        # A track of pictures may come later in a stream of packets.
        if facts.kind is media.media_type or (facts.kind is MediaType.AUDIO and not facts.tracks_are_certain):
            return None
        found = f"the content is {_WORDS[facts.kind]} ({facts.container})"
    elif facts.tracks_are_certain and facts.picture_codec is None and facts.sound_codec is None:
        found = f"the content ({facts.container}) has neither pictures nor sound"
    else:
        return None
    return Reason(
        ReasonCode.UNSUPPORTED_MEDIA,
        f"{found}, but {suffix_phrase(media.media_type)}; rename it, or give the suffix to another of media_types",
    )


def _rejection_by_tracks(facts: MediaFacts, options: Mapping[str, Track]) -> Reason | None:
    if not options or not facts.tracks_are_certain or facts.kind not in (MediaType.VIDEO, MediaType.AUDIO):
        return None
    if any(_has(facts, track) for track in options.values()):
        return None
    wanted = ", ".join(options)
    has = "sound" if facts.picture_codec is None else "pictures"
    return Reason(
        ReasonCode.NO_TRACK,
        f"the requested embeddingOption {wanted} has nothing to be made from: the file has {has} only; exclude it, or "
        "request other options",
    )


def _has(facts: MediaFacts, track: Track) -> bool:
    match track:
        case Track.PICTURE:
            return facts.picture_codec is not None
        case Track.SOUND | Track.SPEECH:
            return facts.sound_codec is not None
        case _:
            return facts.picture_codec is not None or facts.sound_codec is not None
