"""TwelveLabs Marengo Embed 2.7: 1024 dimensions, flat requests. AWS ends it on 2026-11-30.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-marengo.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from media_embeddings.media import MediaObject, MediaType
from media_embeddings.models.limits import rejection_by_size
from media_embeddings.models.protocol import GIBIBYTE, MEBIBYTE, Limits
from media_embeddings.models.segments import SegmentRules, Track
from media_embeddings.models.values import Checker
from media_embeddings.reasons import Reason

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

# The documentation writes "2 GB" and "5 MB" without saying which; the larger reading leaves the last word to Bedrock.
_LIMITS = Limits(
    size_bytes={MediaType.VIDEO: 2 * GIBIBYTE, MediaType.AUDIO: 2 * GIBIBYTE, MediaType.IMAGE: 5 * MEBIBYTE},
    text_tokens=77,
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
            "lengthSec": check.number(given, "lengthSec", least=0),
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

    def model_input(
        self, media: MediaObject, parameters: Mapping[str, Any], *, bucket_owner: str | None, text: str | None
    ) -> dict[str, Any]:
        """Return the flat request body."""
        if media.media_type is MediaType.TEXT:
            return {"inputType": "text", "inputText": text, **parameters}
        location = {"uri": media.uri} | ({"bucketOwner": bucket_owner} if bucket_owner else {})
        return {"inputType": media.media_type.value, "mediaSource": {"s3Location": location}, **parameters}


def _options(check: Checker, media_type: MediaType, given: Mapping[str, Any]) -> list[str] | None:
    # For audio older pages don't know the parameter, and there is one value that it can have: it is sent only if set.
    if media_type is MediaType.AUDIO:
        return check.subset(given, "embeddingOption", ("audio",)) if given.get("embeddingOption") is not None else None
    return check.subset(given, "embeddingOption", _OPTIONS)


MODEL = Marengo27()
