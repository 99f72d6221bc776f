"""TwelveLabs Marengo Embed 3.0: 512 dimensions, nested requests, clip and asset rows.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-marengo-3.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from media_embeddings.media import MediaFacts, MediaObject, MediaType
from media_embeddings.models.lifecycle import Lifecycle
from media_embeddings.models.limits import rejection_by_facts, rejection_by_size
from media_embeddings.models.media_source import media_source
from media_embeddings.models.prices import PriceList, price_list
from media_embeddings.models.protocol import GIBIBYTE, MEBIBYTE, Limits, TextLimits
from media_embeddings.models.segments import SegmentRules, Track
from media_embeddings.models.values import Checker
from media_embeddings.reasons import Reason

if TYPE_CHECKING:
    from media_embeddings.output_folder import OutputFolder
    from media_embeddings.results import SegmentRows

_DOCUMENTATION = "https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-marengo-3.html"
_OPTIONS: Mapping[MediaType, tuple[str, ...]] = {
    MediaType.VIDEO: ("visual", "audio", "transcription"),
    MediaType.AUDIO: ("audio", "transcription"),
}
_TRACKS: Mapping[str, Track] = {"visual": Track.PICTURE, "audio": Track.SOUND, "transcription": Track.SPEECH}
_SCOPES = ("clip", "asset")
_TYPES = ("separate_embedding", "fused_embedding")
_METHODS: Mapping[MediaType, tuple[str, ...]] = {
    MediaType.VIDEO: ("dynamic", "fixed"),
    MediaType.AUDIO: ("fixed",),
}
# By method: the name of its length in seconds, which is 1 or more, the greatest and the default one.
_LENGTHS: Mapping[str, tuple[str, int, int]] = {
    "dynamic": ("minDurationSec", 5, 4),
    "fixed": ("durationSec", 10, 6),
}
# Audio is split evenly, close to 10 s, which no parameter says.
_DEFAULT_SEGMENTATION: Mapping[MediaType, dict[str, Any] | None] = {
    MediaType.VIDEO: {"method": "dynamic", "dynamic": {"minDurationSec": 4}},
    MediaType.AUDIO: None,
}
_CARD = "https://docs.aws.amazon.com/bedrock/latest/userguide/model-card-twelvelabs-marengo-embed-3-0.html"
_LIFECYCLE = Lifecycle(_CARD, {"ap-northeast-2": date(2027, 3, 22)})
_NAMES = frozenset({"startSec", "endSec", "segmentation", "embeddingOption", "embeddingType", "embeddingScope"})

# In the text of multi_input, what refers to the image of this name.
_PLACEHOLDER = re.compile(r"<@([^<>@]+)>")

# "6 GB" and "5 MB" are read as in Marengo 2.7.
_LIMITS = Limits(
    size_bytes={MediaType.VIDEO: 6 * GIBIBYTE, MediaType.AUDIO: 6 * GIBIBYTE, MediaType.IMAGE: 5 * MEBIBYTE},
    text=TextLimits(tokens=500),
    duration_sec={MediaType.VIDEO: 4 * 3600.0, MediaType.AUDIO: 4 * 3600.0},
    # TwelveLabs' page on the model; AWS's pages say nothing of it.
    least_duration_sec={MediaType.VIDEO: 4.0},
    least_pixels={MediaType.VIDEO: (360, 360), MediaType.IMAGE: (128, 128)},
    greatest_pixels={MediaType.VIDEO: (5184, 2160)},
    greatest_aspect={MediaType.VIDEO: 2.4},
    image_formats=frozenset({"jpeg", "png"}),
    unconfirmed=frozenset(
        {"least_duration_sec", "least_pixels", "greatest_pixels", "greatest_aspect", "image_formats"}
    ),
)


@dataclass(frozen=True, slots=True)
class InputImage:
    """An image of a request that has several inputs: its S3 location, or its content."""

    uri: str
    """Where it lies, or what its content is called in messages."""
    bucket_owner: str | None = None
    content: bytes | None = None
    name: str | None = None
    """What ``<@name>`` in the text refers to."""

    @property
    def source(self) -> dict[str, Any]:
        """Return it as the request names it."""
        return media_source(self.uri, self.bucket_owner, self.content)


@dataclass(frozen=True, slots=True)
class Marengo30:
    """Marengo Embed 3.0."""

    name: str = "marengo-3-0"
    model_id: str = "twelvelabs.marengo-embed-3-0-v1:0"
    dimension: int = 512
    media_types: frozenset[MediaType] = frozenset(MediaType)
    # https://docs.aws.amazon.com/bedrock/latest/userguide/model-card-twelvelabs-marengo-embed-3-0.html
    regions: frozenset[str] = frozenset({"us-east-1", "eu-west-1", "ap-northeast-2"})
    limits: Limits = _LIMITS
    embedding_options: frozenset[str] = frozenset({"visual", "audio", "transcription", "fused"})
    lifecycle: Lifecycle = _LIFECYCLE
    output_file: str = "output.json"
    invoke_media_types: frozenset[MediaType] = frozenset({MediaType.IMAGE, MediaType.TEXT})

    @property
    def text_limits(self) -> TextLimits:
        """Return the longest text that one request takes."""
        return self.limits.text

    @property
    def prices(self) -> PriceList:
        """Return what it costs."""
        return price_list(__file__)

    def invoke_model_id(self, region: str) -> str | None:
        """Return the bare id, which stays in the region, but in Europe, where InvokeModel takes the profile only."""
        if region not in self.regions:
            return None
        return f"eu.{self.model_id}" if region == "eu-west-1" else self.model_id

    def parameters(self, media_type: MediaType, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the complete parameters of a request; what is not sent has Bedrock's own default.

        A value that is the documented default is not sent either, so that to spell it out is not to buy anew.
        """
        check = Checker(_DOCUMENTATION)
        timed = media_type in _OPTIONS
        check.names(given, _NAMES if timed else (), f"Marengo 3.0 for {media_type}")
        if not timed:
            return {}
        options = check.subset(given, "embeddingOption", _OPTIONS[media_type])
        types = check.subset({"embeddingType": ["separate_embedding"], **_set(given)}, "embeddingType", _TYPES)
        if "fused_embedding" in types and len(options) < 2:
            raise check.error("embeddingType", "fused_embedding needs at least two values of embeddingOption")
        segmentation = _segmentation(check, given, media_type)
        start = check.number(given, "startSec", least=0) or 0.0
        end = check.number(given, "endSec", least=0)
        least_end = start + _shortest_segment(segmentation)
        if end is not None and (end < least_end or end <= start):
            raise check.error(
                "endSec", f"must be at least startSec and the length of a segment, {least_end:g} (found {end:g})"
            )
        values = {
            "startSec": start or None,
            "endSec": end,
            "segmentation": segmentation if segmentation != _DEFAULT_SEGMENTATION[media_type] else None,
            "embeddingOption": options,
            "embeddingType": types,
            # Bedrock's default is not documented, so it is always said.
            "embeddingScope": check.subset(given, "embeddingScope", _SCOPES),
        }
        return {name: value for name, value in values.items() if value is not None}

    def segment_rules(self, media_type: MediaType, parameters: Mapping[str, Any]) -> SegmentRules:
        """Return what the output of a request has to hold: clips and a whole of each option, speech where there is any."""
        if media_type not in _OPTIONS:
            return SegmentRules()
        separate = "separate_embedding" in parameters["embeddingType"]
        options = {option: _TRACKS[option] for option in parameters["embeddingOption"] if separate}
        if "fused_embedding" in parameters["embeddingType"]:
            options["fused"] = Track.SEVERAL
        segmentation = parameters.get("segmentation") or {}
        return SegmentRules(
            options=options,
            scopes=frozenset(parameters["embeddingScope"]),
            start_sec=parameters.get("startSec") or 0.0,
            end_sec=parameters.get("endSec"),
            fixed_sec=segmentation.get("fixed", {}).get("durationSec"),
        )

    def rejection(self, media: MediaObject) -> Reason | None:
        """Return why the model can't take an object, as far as its listing tells."""
        return rejection_by_size(media, self.limits)

    def rejection_by_facts(
        self,
        media: MediaObject,
        facts: MediaFacts,
        parameters: Mapping[str, Any] | None = None,  # noqa: ARG002 - the limits are the same with all of them
    ) -> Reason | None:
        """Return why the model can't take an object, as far as its header tells."""
        return rejection_by_facts(media, facts, self.limits)

    def model_input(
        self,
        media: MediaObject,
        parameters: Mapping[str, Any],
        *,
        bucket_owner: str | None,
        text: str | None,
        content: bytes | None = None,
    ) -> dict[str, Any]:
        """Return the request body, nested under its input type."""
        kind = media.media_type.value
        if media.media_type is MediaType.TEXT:
            return self.query_input(text or "")
        return {"inputType": kind, kind: {"mediaSource": media_source(media.uri, bucket_owner, content), **parameters}}

    def query_input(self, text: str) -> dict[str, Any]:
        """Return the request for a text."""
        return {"inputType": "text", "text": {"inputText": text}}

    def text_image_input(self, text: str, image: InputImage) -> dict[str, Any]:
        """Return the request for one vector of a text and an image together."""
        return {"inputType": "text_image", "text_image": {"inputText": text, "mediaSource": image.source}}

    def multi_input(self, text: str | None, images: Sequence[InputImage]) -> dict[str, Any]:
        """Return the request for one vector of several images, and a text that may refer to them by ``<@name>``.

        :raises ParameterError: where there is no image, or the text and the images' names don't match.
        """
        _check_names(text or "", images)
        sources = [
            ({"name": image.name} if image.name else {}) | {"mediaType": "image"} | image.source for image in images
        ]
        return {
            "inputType": "multi_input",
            "multi_input": ({"inputText": text} if text else {}) | {"mediaSources": sources},
        }

    def read_output(self, folder: OutputFolder, media_type: MediaType) -> SegmentRows:
        """Return the rows of ``output.json``."""
        from media_embeddings.streamed_results import read_rows

        return read_rows(folder, self, media_type)


def _check_names(text: str, images: Sequence[InputImage]) -> None:
    check = Checker(_DOCUMENTATION)
    if not images:
        raise check.error("mediaSources", "must be one or more images (found none)")
    names = [image.name for image in images if image.name]
    if len(set(names)) != len(names):
        raise check.error("mediaSources", f"must have names that differ (found {', '.join(names)})")
    wanted = set(_PLACEHOLDER.findall(text))
    if wanted and (wanted != set(names) or len(names) != len(images)):
        found = ", ".join(image.name or "an image without a name" for image in images)
        raise check.error(
            "mediaSources", f"must be one image for each of {', '.join(sorted(wanted))} in inputText (found {found})"
        )


def _set(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _segmentation(check: Checker, given: Mapping[str, Any], media_type: MediaType) -> dict[str, Any] | None:
    """Return the segmentation with its length, which has a documented default, or the media type's default."""
    segmentation = given.get("segmentation")
    if segmentation is None:
        return _DEFAULT_SEGMENTATION[media_type]
    if not isinstance(segmentation, Mapping):
        raise check.error("segmentation", f"must be a mapping with a method (found {segmentation!r})")
    methods = _METHODS[media_type]
    method = segmentation.get("method")
    if method not in methods:
        raise check.error("segmentation", f"method must be one of {', '.join(methods)} (found {method!r})")
    check.names(segmentation, {"method", method}, f"segmentation with the method {method}")
    details = segmentation.get(method, {})
    if not isinstance(details, Mapping):
        raise check.error("segmentation", f"{method} must be a mapping (found {details!r})")
    name, most, default = _LENGTHS[method]
    check.names(details, {name}, f"segmentation.{method}")
    return {"method": method, method: {name: check.number(details, name, least=1, most=most, whole=True) or default}}


def _shortest_segment(segmentation: Mapping[str, Any] | None) -> float:
    if segmentation is None:
        return 0.0
    method = segmentation["method"]
    name, _, _ = _LENGTHS[method]
    return float(segmentation[method][name])


MODEL = Marengo30()
