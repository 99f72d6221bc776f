"""TwelveLabs Marengo Embed 2.7.

Rules: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-marengo.html
"""

from __future__ import annotations

from datetime import date
from typing import ClassVar

from ..embedding_task import EmbeddingTask, MediaKind, Segmentation
from ..settings import Settings
from ..tokens import truncated
from ..validation import Fields, malformed
from .model import GIGABYTE, MEGABYTE, Embedding, Model, OutputRow, evenly

OPTIONS = ("visual-text", "visual-image", "audio")
DEFAULT_MINIMUM_CLIP = 4
# The guide's dynamic segments are 2 to 10 s long, even with a minClipSec of 1.
SHORTEST_SHOT = 2.0


class Marengo27(Model):
    """A flat request; 1024 dimensions; rows without a scope."""

    model_id = "twelvelabs.marengo-embed-2-7-v1:0"
    dimension = 1024
    regions = frozenset({"us-east-1", "eu-west-1"})
    profile_regions: ClassVar = {"us-east-1": "us", "eu-west-1": "eu"}
    direct_invoke_regions = frozenset[str]()
    invoke_input_types = frozenset({"text", "image"})
    end_of_life: ClassVar = {"us-east-1": date(2026, 11, 30), "eu-west-1": date(2026, 11, 30)}
    max_object_bytes: ClassVar = {
        MediaKind.VIDEO: 2 * GIGABYTE,
        MediaKind.AUDIO: 2 * GIGABYTE,
        MediaKind.IMAGE: 5 * MEGABYTE,
    }
    max_media_seconds = 2 * 3600.0
    max_text_tokens = 77
    options_share_segments = True

    def _task(self, fields: Fields, _settings: Settings) -> EmbeddingTask:
        input_type = fields.choice("inputType", ("text", "image", "audio", "video"))
        if input_type == "text":
            return self._text(fields)
        kind = MediaKind(input_type)
        location = fields.nested("mediaSource")
        source = location.media_source()
        location.finish()
        if kind is MediaKind.IMAGE:
            return EmbeddingTask(input_type, kind=kind, sources=(source,))
        start = fields.seconds("startSec") or 0.0
        length = fields.seconds("lengthSec")
        if length == 0:
            raise malformed("#/lengthSec", "0 is not greater than 0")
        options = fields.choices("embeddingOption", OPTIONS, OPTIONS)
        return EmbeddingTask(
            input_type,
            kind=kind,
            sources=(source,),
            start_sec=start,
            end_sec=None if length is None else start + length,
            segmentation=_segmentation(fields, kind),
            options=options if kind is MediaKind.VIDEO else _sound_options(fields, options),
        )

    def _text(self, fields: Fields) -> EmbeddingTask:
        text = fields.text("inputText")
        if fields.choice("textTruncate", ("end", "none"), default="end") == "end":
            text = truncated(text, self.max_text_tokens)
        self.check_tokens(text)
        return EmbeddingTask("text", text=text)

    def row(self, embedding: Embedding, _settings: Settings) -> OutputRow:
        """Return ``embedding``, and for video and audio ``embeddingOption``, ``startSec`` and ``endSec``."""
        row: OutputRow = {"embedding": embedding.vector.tolist()}
        if embedding.option is not None:
            start, end = embedding.times
            row |= {"embeddingOption": embedding.option, "startSec": start, "endSec": end}
        return row


def _sound_options(fields: Fields, options: tuple[str, ...]) -> tuple[str, ...]:
    # The default names all three also for audio; a sound file gives what it has.
    if "audio" not in options:
        raise malformed(f"{fields.path}/embeddingOption", "audio input has only the option audio")
    return ("audio",)


def _segmentation(fields: Fields, kind: MediaKind) -> Segmentation:
    fixed = fields.seconds("useFixedLengthSec", minimum=2, maximum=10)
    if kind is MediaKind.AUDIO:
        return evenly() if fixed is None else Segmentation("fixed", length=fixed)
    minimum = fields.whole_number("minClipSec", minimum=1, maximum=5)
    if fixed is not None:
        if minimum is not None and minimum > fixed:
            raise malformed("#/minClipSec", f"{minimum} is greater than useFixedLengthSec, {fixed:g}")
        return Segmentation("fixed", length=fixed)
    return Segmentation("shots", minimum=max(SHORTEST_SHOT, float(minimum or DEFAULT_MINIMUM_CLIP)))


MODEL = Marengo27()
