"""TwelveLabs Marengo Embed 2.7: 1024 dimensions, flat requests. AWS ends it on 2026-11-30.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-marengo.html
"""

from __future__ import annotations

from collections.abc import Mapping
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

_DOCUMENTATION = "https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-marengo.html"
_OPTIONS = ("visual-text", "visual-image", "audio")
_TRACKS: Mapping[MediaType, Mapping[str, Track]] = {
    MediaType.VIDEO: {"visual-text": Track.PICTURE, "visual-image": Track.PICTURE, "audio": Track.SOUND},
    MediaType.AUDIO: {"audio": Track.SOUND},
}
_NAMES: Mapping[MediaType, frozenset[str]] = {
    MediaType.VIDEO: frozenset({"embeddingOption", "startSec", "lengthSec", "useFixedLengthSec", "minClipSec"}),
    MediaType.AUDIO: frozenset({"embeddingOption", "startSec", "lengthSec", "useFixedLengthSec"}),
    MediaType.IMAGE: frozenset(),
    MediaType.TEXT: frozenset({"textTruncate"}),
}
_DEFAULT_MIN_CLIP_SEC = 4
_CARD = "https://docs.aws.amazon.com/bedrock/latest/userguide/model-card-twelvelabs-marengo-embed-v2-7.html"
_LIFECYCLE = Lifecycle(_CARD, {"us-east-1": date(2026, 11, 30), "eu-west-1": date(2026, 11, 30)})
# By region, what InvokeModel takes; the bare id it takes nowhere.
_PROFILES: Mapping[str, str] = {"us-east-1": "us", "eu-west-1": "eu"}

# The documentation writes "2 GB" and "5 MB" without saying which; the larger reading leaves the last word to Bedrock.
_LIMITS = Limits(
    size_bytes={MediaType.VIDEO: 2 * GIBIBYTE, MediaType.AUDIO: 2 * GIBIBYTE, MediaType.IMAGE: 5 * MEBIBYTE},
    text=TextLimits(tokens=77),
    duration_sec={MediaType.VIDEO: 2 * 3600.0, MediaType.AUDIO: 2 * 3600.0},
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
class Marengo27:
    """Marengo Embed 2.7."""

    name: str = "marengo-2-7"
    model_id: str = "twelvelabs.marengo-embed-2-7-v1:0"
    dimension: int = 1024
    media_types: frozenset[MediaType] = frozenset(MediaType)
    # https://docs.aws.amazon.com/bedrock/latest/userguide/model-card-twelvelabs-marengo-embed-v2-7.html
    regions: frozenset[str] = frozenset({"us-east-1", "eu-west-1"})
    limits: Limits = _LIMITS
    embedding_options: frozenset[str] = frozenset(_OPTIONS)
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
        """Return the inference profile of a region."""
        geography = _PROFILES.get(region)
        return f"{geography}.{self.model_id}" if geography else None

    def parameters(self, media_type: MediaType, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the complete parameters of a request; what is not sent has Bedrock's own default.

        A value that is the documented default is not sent either, so that to spell it out is not to buy anew.
        """
        check = Checker(_DOCUMENTATION)
        check.names(given, _NAMES[media_type], f"Marengo 2.7 for {media_type}")
        if media_type is MediaType.TEXT:
            # Bedrock's default cuts a long text in silence; "none" makes it refuse.
            return {"textTruncate": check.choice(given, "textTruncate", ("end", "none"), "none")}
        if media_type is MediaType.IMAGE:
            return {}
        fixed = check.number(given, "useFixedLengthSec", least=2, most=10)
        shortest = check.number(given, "minClipSec", least=1, most=5, whole=True) or _DEFAULT_MIN_CLIP_SEC
        if fixed is not None and media_type is MediaType.VIDEO and fixed < shortest:
            raise check.error(
                "useFixedLengthSec", f"must be at least minClipSec, which is {shortest} (found {fixed:g})"
            )
        values = {
            "embeddingOption": _options(check, media_type, given),
            "startSec": check.number(given, "startSec", least=0) or None,
            # The page's range begins with 0, which would leave nothing to embed.
            "lengthSec": check.number(given, "lengthSec", least=0, above=True),
            "useFixedLengthSec": fixed,
            "minClipSec": shortest if shortest != _DEFAULT_MIN_CLIP_SEC else None,
        }
        return {name: value for name, value in values.items() if value is not None}

    def segment_rules(self, media_type: MediaType, parameters: Mapping[str, Any]) -> SegmentRules:
        """Return what the output of a request has to hold: clips of each option, without gaps."""
        if media_type not in _TRACKS:
            return SegmentRules()
        options = parameters.get("embeddingOption") or list(_TRACKS[media_type])
        start, length = parameters.get("startSec") or 0.0, parameters.get("lengthSec")
        return SegmentRules(
            options={option: _TRACKS[media_type][option] for option in options},
            start_sec=start,
            end_sec=None if length is None else start + length,
            fixed_sec=parameters.get("useFixedLengthSec"),
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
        """Return the flat request body."""
        if media.media_type is MediaType.TEXT:
            return {"inputType": "text", "inputText": text, **parameters}
        source = media_source(media.uri, bucket_owner, content)
        return {"inputType": media.media_type.value, "mediaSource": source, **parameters}

    def query_input(self, text: str) -> dict[str, Any]:
        """Return the request for a text that is searched for."""
        return {"inputType": "text", "inputText": text, "textTruncate": "none"}

    def read_output(self, folder: OutputFolder, media_type: MediaType) -> SegmentRows:
        """Return the rows of ``output.json``."""
        from media_embeddings.streamed_results import read_rows

        return read_rows(folder, self, media_type)


def _options(check: Checker, media_type: MediaType, given: Mapping[str, Any]) -> list[str] | None:
    # For audio older pages don't know the parameter, and there is one value that it can have: it is sent only if set.
    if media_type is MediaType.AUDIO:
        return check.subset(given, "embeddingOption", ("audio",)) if given.get("embeddingOption") is not None else None
    return check.subset(given, "embeddingOption", _OPTIONS)


MODEL = Marengo27()
