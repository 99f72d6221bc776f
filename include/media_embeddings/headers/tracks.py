"""Container, tracks, duration and size of pictures of a video or audio file, by PyAV: FFmpeg reads what models read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import av
import av.container
import av.logging
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from media_embeddings.headers.content import Content, ContentFile, MissingRangeError
from media_embeddings.headers.parsing import NoMediaError
from media_embeddings.headers.sample_tables import Layout, layout
from media_embeddings.media import MediaFacts, MediaType

# Enough for what has a header. Streams of packets have none: a track shows only when its first packet comes.
_PROBED_BYTES = 32 * 1024
_PROBED_BYTES_OF_PACKETS = 512 * 1024
_PACKETS = (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"G")
# These list all their tracks in the header; in others, one that was not seen may still be there.
_LISTS_TRACKS = frozenset({"mov", "matroska", "avi", "wav", "mp3", "flac", "asf", "aiff", "w64"})
# FFmpeg shows pictures, animations and terminal screens as if they were video.
_PICTURES = ("_pipe", "image2")
_NEITHER = frozenset({"gif", "apng", "webp_anim", "ico", "tty"})
_GUESSED = "Estimating duration from bitrate"
# Only in its messages does FFmpeg tell what it has guessed.
av.logging.set_level(av.logging.WARNING)
av.logging.set_skip_repeated(False)


def track_facts(content: Content, suffix: str) -> MediaFacts | None:
    """Return what the header of a video or audio file says; None where PyAV can't tell.

    :param suffix: of the object's key, which tells containers apart that begin alike; may be empty.
    :raises NoMediaError: where it is of no container that FFmpeg reads, or one without the part that it can't be read
        without.
    :raises MissingRangeError: where more of the object is needed.
    """
    offset = _behind_tags(content)
    found = Layout() if offset else layout(content)
    start = content.bytes_at(offset, 12)
    # The index of an AVI takes megabytes and is read only by who may seek; the pieces of a fragmented MP4 lie all over.
    can_seek = not found.is_fragmented and not (start[:4] == b"RIFF" and start[8:12] == b"AVI ")
    file = ContentFile(
        content,
        name=f"object{suffix}",
        offset=offset,
        blanks=found.blanks,
        can_seek=can_seek,
        reads_short=True,
    )
    probed = _PROBED_BYTES_OF_PACKETS if start.startswith(_PACKETS) else _PROBED_BYTES
    try:
        with (
            av.logging.Capture() as messages,
            av.open(
                file, mode="r", metadata_errors="ignore", container_options={"probesize": str(probed)}
            ) as container,
        ):
            facts = _facts(container, [text for _, _, text in messages])
    except (av.error.InvalidDataError, av.error.EOFError) as error:
        if content.missing is not None:
            raise MissingRangeError from error
        if found.blanks:
            return None
        raise NoMediaError(f"FFmpeg can't read its header ({error.strerror})") from error
    except (av.error.FFmpegError, ValueError, OSError, LookupError) as error:
        if content.missing is not None:
            raise MissingRangeError from error
        return None
    if content.missing is not None:
        raise MissingRangeError
    return _without_guesses(facts, is_cut=content.is_cut, is_fragmented=found.is_fragmented)


def _behind_tags(content: Content) -> int:
    """Return where the media begin behind ID3 tags, which hold covers of any size.

    https://id3.org/id3v2.4.0-structure
    """
    position = 0
    for _ in range(8):
        header = content.bytes_at(position, 10)
        if len(header) < 10 or not header.startswith(b"ID3") or max(header[6:10]) > 127:
            break
        length = sum(byte << shift for byte, shift in zip(header[6:10], (21, 14, 7, 0), strict=True))
        position += 10 + length + (10 if header[5] & 0x10 else 0)
    return position if position < content.size_bytes else 0


def _facts(container: av.container.InputContainer, messages: Sequence[str]) -> MediaFacts:
    names = container.format.name.split(",")
    pictures = next((stream for stream in container.streams.video if not _is_cover(stream)), None)
    sound = next(iter(container.streams.audio), None)
    return MediaFacts(
        container=names[0],
        duration_sec=_duration(container),
        picture_codec=_codec(pictures),
        sound_codec=_codec(sound),
        width=(pictures.width or None) if pictures and pictures.codec_context else None,
        height=(pictures.height or None) if pictures and pictures.codec_context else None,
        kind=_kind(names, pictures, sound),
        duration_is_estimated=any(_GUESSED in message for message in messages),
        tracks_are_certain=names[0] in _LISTS_TRACKS,
    )


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _kind(names: Sequence[str], pictures: VideoStream | None, sound: AudioStream | None) -> MediaType | None:
    if any(name.endswith(_PICTURES) for name in names):
        return MediaType.IMAGE
    if _NEITHER.intersection(names):
        return None
    if pictures is not None:
        return MediaType.VIDEO
    return MediaType.AUDIO if sound is not None else None


def _codec(stream: VideoStream | AudioStream | None) -> str | None:
    """Return the codec's name as FFmpeg gives it, ``unknown`` where it has none for the track."""
    if stream is None:
        return None
    return stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"


def _duration(container: av.container.InputContainer) -> float | None:
    """Return the duration in seconds, None where the header has none."""
    if container.duration and container.duration > 0:
        return float(container.duration / av.time_base)
    lengths = [
        float(stream.duration * stream.time_base)
        for stream in container.streams
        if stream.duration and stream.duration > 0 and stream.time_base
    ]
    return max(lengths, default=None)


def _without_guesses(facts: MediaFacts, *, is_cut: bool, is_fragmented: bool) -> MediaFacts:
    """Leave out what FFmpeg makes of a part of the file: how long it is, and which tracks it has not."""
    if not is_cut and not is_fragmented:
        return facts
    return replace(
        facts,
        duration_sec=None,
        duration_is_estimated=False,
        tracks_are_certain=facts.tracks_are_certain and not is_cut,
    )
