"""TwelveLabs Marengo Embed 3.0.

Rules: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-marengo-3.html
"""

from __future__ import annotations

import re
from datetime import date
from typing import ClassVar

from ..embedding_task import EmbeddingTask, MediaKind, MediaSource, Segmentation
from ..settings import Settings
from ..validation import Fields, malformed
from .model import GIGABYTE, MEGABYTE, Embedding, Model, OutputRow, evenly

VIDEO_OPTIONS = ("visual", "audio", "transcription")
AUDIO_OPTIONS = ("audio", "transcription")
SCOPES = ("clip", "asset")
TYPES = ("separate_embedding", "fused_embedding")
DEFAULT_FIXED_SECONDS = 6
DEFAULT_SHORTEST_SHOT = 4

_PLACEHOLDER = re.compile(r"<@([^<>@]+)>")


class Marengo30(Model):
    """A request nested under its input type; 512 dimensions; rows of clips and of the whole asset."""

    model_id = "twelvelabs.marengo-embed-3-0-v1:0"
    dimension = 512
    regions = frozenset({"us-east-1", "eu-west-1", "ap-northeast-2"})
    profile_regions: ClassVar = {"us-east-1": "us", "eu-west-1": "eu"}
    direct_invoke_regions = frozenset({"us-east-1", "ap-northeast-2"})
    invoke_input_types = frozenset({"text", "image", "text_image", "multi_input"})
    end_of_life: ClassVar = {"ap-northeast-2": date(2027, 3, 22)}
    max_object_bytes: ClassVar = {
        MediaKind.VIDEO: 6 * GIGABYTE,
        MediaKind.AUDIO: 6 * GIGABYTE,
        MediaKind.IMAGE: 5 * MEGABYTE,
    }
    max_media_seconds = 4 * 3600.0
    max_text_tokens = 500
    options_share_segments = False

    def _task(self, fields: Fields, settings: Settings) -> EmbeddingTask:
        readers = {
            "text": self._text,
            "image": self._image,
            "text_image": self._text_image,
            "audio": self._timed,
            "video": self._timed,
            "multi_input": self._multi_input,
        }
        input_type = fields.choice("inputType", tuple(readers))
        fields.optional_text("inferenceId")
        payload = fields.nested(input_type)
        task = readers[input_type](input_type, payload, settings)
        payload.finish()
        return task

    def _text(self, input_type: str, payload: Fields, _: Settings) -> EmbeddingTask:
        return EmbeddingTask(input_type, text=self._checked_text(payload))

    def _image(self, input_type: str, payload: Fields, _: Settings) -> EmbeddingTask:
        return EmbeddingTask(input_type, kind=MediaKind.IMAGE, sources=(_media_source(payload),))

    def _text_image(self, input_type: str, payload: Fields, _: Settings) -> EmbeddingTask:
        text, source = self._checked_text(payload), _media_source(payload)
        return EmbeddingTask(input_type, text=text, kind=MediaKind.IMAGE, sources=(source,))

    def _multi_input(self, input_type: str, payload: Fields, _: Settings) -> EmbeddingTask:
        text = payload.optional_text("inputText") or ""
        self.check_tokens(text)
        sources = {}
        placeholders = list(dict.fromkeys(_PLACEHOLDER.findall(text)))
        for index, item in enumerate(payload.nested_list("mediaSources")):
            item.choice("mediaType", ("image",))
            name = item.optional_text("name")
            if placeholders and name not in placeholders:
                raise malformed(item.path, "its name must be one of the placeholders <@name> in inputText")
            key = name or f"source {index}"
            if key in sources:
                raise malformed(item.path, f"the name {key} is used twice")
            sources[key] = item.media_source(name=name or "")
            item.finish()
        for placeholder in placeholders:
            if placeholder not in sources:
                raise malformed(f"{payload.path}/mediaSources", f"no media source is named {placeholder}")
        ordered = [sources[name] for name in placeholders] or list(sources.values())
        words = _PLACEHOLDER.sub(" ", text).strip() or None
        return EmbeddingTask(input_type, text=words, kind=MediaKind.IMAGE, sources=tuple(ordered))

    def _timed(self, input_type: str, payload: Fields, settings: Settings) -> EmbeddingTask:
        kind = MediaKind(input_type)
        source = _media_source(payload)
        segmentation = _segmentation(payload, kind)
        start = payload.seconds("startSec") or 0.0
        shortest = {"fixed": segmentation.length, "shots": segmentation.minimum, "even": 0.0}[segmentation.method]
        end = payload.seconds("endSec", minimum=start + shortest)
        if end is not None and end <= start:
            raise malformed(f"{payload.path}/endSec", f"{end:g} is not greater than startSec, {start:g}")
        allowed = VIDEO_OPTIONS if kind is MediaKind.VIDEO else AUDIO_OPTIONS
        options = payload.choices("embeddingOption", allowed, allowed)
        types = payload.choices("embeddingType", TYPES, ("separate_embedding",))
        if "fused_embedding" in types and len(options) < 2:
            raise malformed(
                f"{payload.path}/embeddingType", "fused_embedding needs at least two values of embeddingOption"
            )
        return EmbeddingTask(
            input_type,
            kind=kind,
            sources=(source,),
            start_sec=start,
            end_sec=end,
            segmentation=segmentation,
            options=options,
            scopes=payload.choices("embeddingScope", SCOPES, settings.default_embedding_scope),
            separate="separate_embedding" in types,
            fused="fused_embedding" in types,
        )

    def _checked_text(self, payload: Fields) -> str:
        text = payload.text("inputText")
        self.check_tokens(text)
        return text

    def row(self, embedding: Embedding, settings: Settings) -> OutputRow:
        """Return ``embedding``, and for video and audio its option, scope, ``startSec`` and ``endSec``."""
        row: OutputRow = {"embedding": embedding.vector.tolist()}
        if embedding.option is None:
            return row
        row |= {"embeddingOption": embedding.option, "embeddingScope": embedding.scope}
        if embedding.scope == "clip" or settings.asset_rows_have_times:
            start, end = embedding.times
            row |= {"startSec": start, "endSec": end}
        return row


def _media_source(payload: Fields) -> MediaSource:
    location = payload.nested("mediaSource")
    source = location.media_source()
    location.finish()
    return source


def _segmentation(payload: Fields, kind: MediaKind) -> Segmentation:
    default = Segmentation("shots", minimum=DEFAULT_SHORTEST_SHOT) if kind is MediaKind.VIDEO else evenly()
    segmentation = payload.optional_nested("segmentation")
    if segmentation is None:
        return default
    # The guide gives dynamic segmentation to video only.
    method = segmentation.choice("method", ("dynamic", "fixed") if kind is MediaKind.VIDEO else ("fixed",))
    details = segmentation.optional_nested(method)
    if method == "dynamic":
        minimum = details.whole_number("minDurationSec", minimum=1, maximum=5) if details else None
        result = Segmentation("shots", minimum=float(minimum or DEFAULT_SHORTEST_SHOT))
    else:
        length = details.whole_number("durationSec", minimum=1, maximum=10) if details else None
        result = Segmentation("fixed", length=float(length or DEFAULT_FIXED_SECONDS))
    if details is not None:
        details.finish()
    segmentation.finish()
    return result


MODEL = Marengo30()
