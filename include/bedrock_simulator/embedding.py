"""Turns one task and its media into embeddings: decode, cut, make vectors."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from . import vectors
from .embedding_task import EmbeddingTask, MediaKind, MediaSource, Segmentation, TextCut
from .media import Probe, Sampled, UnusableMediaError, probe, read_frames, read_image, read_sound
from .models import Embedding, Model
from .segmentation import Span, segments, shot_boundaries, text_spans
from .settings import Settings
from .tokens import token_count, truncated, truncated_at_start

OpenSource = Callable[[MediaSource], AbstractContextManager[BinaryIO]]
Features = npt.NDArray[np.float64]

_PICTURE_OPTIONS = frozenset({"visual", "visual-text", "visual-image"})
_ENVELOPE_VIDEO_SECONDS = 4.0
_ENVELOPE_IMAGE_SIDE = 128


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The part of a file that a task asks for. Seconds."""

    start: float
    end: float


def media_seconds(task: EmbeddingTask, model: Model, settings: Settings, open_source: OpenSource) -> float:
    """Return how many seconds of video or audio the task covers; 0 for text and images.

    :raises UnusableMediaError: if the file can't be read or breaks a rule that only its content shows.
    """
    if task.kind not in (MediaKind.VIDEO, MediaKind.AUDIO):
        return 0.0
    with open_source(task.sources[0]) as file:
        stretch = _stretch(task, model, settings, probe(file, task.kind))
    return stretch.end - stretch.start


def embed(task: EmbeddingTask, model: Model, settings: Settings, open_source: OpenSource) -> list[Embedding]:
    """Make the task's embeddings, in the order the settings ask for.

    :raises UnusableMediaError: if the media can't be decoded or break a rule that only their content shows.
    """
    if task.kind in (MediaKind.VIDEO, MediaKind.AUDIO):
        return _in_order(_embed_timed(task, model, settings, open_source), task, settings)
    if task.text_cut is not None:
        return _embed_text(task, task.text_cut, model, open_source)
    features = np.zeros(vectors.FEATURES)
    if task.text is not None:
        features += vectors.features_of_text(task.text)
    for source in task.sources:
        with open_source(source) as file:
            pixels, (width, height) = read_image(file.read(), model.image_formats or settings.image_formats)
        if settings.enforce_media_envelope and min(width, height) < _ENVELOPE_IMAGE_SIDE:
            raise UnusableMediaError(f"The image has {width}x{height} pixels; at least 128x128 are needed.")
        features += vectors.features_of_pictures(vectors.pictures_of_frames(pixels[np.newaxis]))
    return [Embedding(vectors.vector(vectors.weighted(features, ""), task.dimension or model.dimension))]


def _embed_text(task: EmbeddingTask, cut: TextCut, model: Model, open_source: OpenSource) -> list[Embedding]:
    text = task.text
    if text is None:
        with open_source(task.sources[0]) as file:
            try:
                text = file.read().decode("utf-8")
            except UnicodeDecodeError as error:
                raise UnusableMediaError("The content is no text in UTF-8.") from error
    spans = text_spans(text, cut.most_characters)
    if task.is_single and len(spans) > 1:
        raise UnusableMediaError(f"The text has {len(text)} characters; up to {cut.most_characters} are taken.")
    if model.max_text_segments is not None and len(spans) > model.max_text_segments:
        raise UnusableMediaError(f"The text has {len(spans)} segments; up to {model.max_text_segments} are made.")
    return [_embed_part(text, span, cut, task.dimension or model.dimension) for span in spans]


def _embed_part(text: str, span: tuple[int, int], cut: TextCut, dimension: int) -> Embedding:
    part = text[slice(*span)]
    fitting, failure = part, None
    if token_count(part) > cut.most_tokens:
        if cut.truncation == "NONE":
            failure = "INVALID_CONTENT"
        else:
            fitting = (truncated if cut.truncation == "END" else truncated_at_start)(part, cut.most_tokens)
    features = vectors.weighted(vectors.features_of_text(fitting), "")
    return Embedding(
        vectors.vector(features, dimension),
        start_char=span[0],
        end_char=span[1],
        truncated_characters=len(fitting) if fitting != part else None,
        failure=failure,
    )


def _stretch(task: EmbeddingTask, model: Model, settings: Settings, header: Probe) -> _Stretch:
    duration = header.duration_sec
    if duration is None or duration <= 0:
        raise UnusableMediaError("The media can't be decoded: their duration can't be told.")
    most = task.most_seconds or model.max_media_seconds
    if duration > most:
        raise UnusableMediaError(
            f"The media are {duration:.1f} s long, longer than the {most:g} s that the model takes."
        )
    if settings.enforce_media_envelope and header.kind is MediaKind.VIDEO:
        _check_envelope(header, duration)
    # A container's duration is rounded: a request may name it with a few decimals.
    if task.start_sec >= duration:
        raise UnusableMediaError(f"startSec {task.start_sec:g} is not within the media's {duration:.3f} s.")
    if task.end_sec is not None and task.end_sec > duration + 0.1:
        raise UnusableMediaError(f"The requested end {task.end_sec:g} s is after the media's {duration:.3f} s.")
    return _Stretch(task.start_sec, min(task.end_sec or duration, duration))


def _check_envelope(header: Probe, duration: float) -> None:
    short, long = sorted((header.width, header.height))
    if duration < _ENVELOPE_VIDEO_SECONDS:
        raise UnusableMediaError(f"The video is {duration:.3f} s long; at least 4 s are needed.")
    if short < 360 or long > 5184 or short > 2160:
        raise UnusableMediaError(
            f"The video has {header.width}x{header.height} pixels; 360x360 to 5184x2160 are taken."
        )
    if long > 2.4 * short:
        raise UnusableMediaError(
            f"The video's aspect ratio {header.width}:{header.height} is not within 1:2.4 and 2.4:1."
        )


@dataclass(frozen=True, slots=True)
class _Tracks:
    """What was decoded: the pictures and their cuts, and the sound; None where the file has no such track."""

    pictures: Sampled | None
    cuts: list[float]
    sound: Sampled | None

    def of(self, option: str) -> Sampled | None:
        """Return the track that an embedding option looks at."""
        return self.pictures if option in _PICTURE_OPTIONS else self.sound


def _embed_timed(task: EmbeddingTask, model: Model, settings: Settings, open_source: OpenSource) -> list[Embedding]:
    assert task.kind is not None  # noqa: S101  (told by the caller)
    with open_source(task.sources[0]) as file:
        header = probe(file, task.kind)
        stretch = _stretch(task, model, settings, header)
        tracks = _decoded(file, task, header, stretch)
    present = {option: track for option in task.options if (track := tracks.of(option)) is not None}
    if not present and settings.absent_track == "Failed":
        raise UnusableMediaError(f"The media have no track for any of {', '.join(task.options)}.")

    main_spans = segments(task.segmentation, stretch.start, stretch.end, tracks.cuts)
    if model.max_timed_segments is not None and len(main_spans) > model.max_timed_segments:
        raise UnusableMediaError(
            f"The media have {len(main_spans)} segments; up to {model.max_timed_segments} are made."
        )
    sound_spans = main_spans
    if task.segmentation.method == "shots" and not (model.options_share_segments or settings.options_share_segments):
        sound_spans = segments(Segmentation("even"), stretch.start, stretch.end)
    result: list[Embedding] = []
    if task.separate:
        for option, track in present.items():
            spans = main_spans if option in _PICTURE_OPTIONS else sound_spans
            features = [_features(track, option, span) for span in spans]
            result += _embeddings(features, spans, option, task, model)
    if task.fused and len(present) > (0 if task.fuses_what_there_is else 1):
        fused = [
            np.sum([_features(track, option, span) for option, track in present.items()], axis=0) for span in main_spans
        ]
        result += _embeddings(fused, main_spans, "fused", task, model)
    if settings.segment_offsets == "relative":
        result = [embedding.shifted(-stretch.start) for embedding in result]
    return result


def _decoded(file: BinaryIO, task: EmbeddingTask, header: Probe, stretch: _Stretch) -> _Tracks:
    pictures, sound, cuts = None, None, list[float]()
    wants_pictures = bool(_PICTURE_OPTIONS.intersection(task.options)) or task.segmentation.method == "shots"
    if header.kind is MediaKind.VIDEO and wants_pictures:
        frames = read_frames(file, stretch.start, stretch.end)
        cuts = shot_boundaries(frames.times, frames.pixels)
        pictures = Sampled(frames.times, vectors.pictures_of_frames(frames.pixels))
    if header.has_audio and set(task.options) - _PICTURE_OPTIONS:
        sound = read_sound(file, stretch.start, stretch.end)
    return _Tracks(pictures, cuts, sound)


def _features(track: Sampled, option: str, span: Span) -> Features:
    values = track.within(*span)
    if option in _PICTURE_OPTIONS:
        return vectors.weighted(vectors.features_of_pictures(values), option)
    return vectors.weighted(vectors.features_of_sound(values), option)


def _embeddings(
    features: list[Features], spans: list[Span], option: str, task: EmbeddingTask, model: Model
) -> Iterator[Embedding]:
    dimension = task.dimension or model.dimension
    if "clip" in task.scopes:
        for (start, end), values in zip(spans, features, strict=True):
            yield Embedding(vectors.vector(values, dimension), option, "clip", start, end)
    if "asset" in task.scopes:
        whole = vectors.vector(np.mean(features, axis=0), dimension)
        yield Embedding(whole, option, "asset", spans[0][0], spans[-1][1])


def _in_order(embeddings: list[Embedding], task: EmbeddingTask, settings: Settings) -> list[Embedding]:
    if settings.row_order == "by_time":
        # Within one start, the clip rows come before the asset's.
        return sorted(embeddings, key=lambda row: (row.scope == "asset", row.start_sec or 0.0))
    if settings.row_order == "shuffled":
        shuffled = list(embeddings)
        random.Random(task.source_name).shuffle(shuffled)  # noqa: S311  (no secret)
        return shuffled
    return embeddings
