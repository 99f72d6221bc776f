"""TwelveLabs Marengo Embed 3.0: 512 dimensions, nested requests, clip and asset rows.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-marengo-3.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from media_embeddings.media import MediaObject, MediaType
from media_embeddings.models.limits import rejection_by_size
from media_embeddings.models.protocol import GIBIBYTE, MEBIBYTE, Limits
from media_embeddings.models.values import Checker
from media_embeddings.reasons import Reason

_DOCUMENTATION = "https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-marengo-3.html"
_OPTIONS: Mapping[MediaType, tuple[str, ...]] = {
    MediaType.VIDEO: ("visual", "audio", "transcription"),
    MediaType.AUDIO: ("audio", "transcription"),
}
_SCOPES = ("clip", "asset")
_TYPES = ("separate_embedding", "fused_embedding")
_METHODS: Mapping[MediaType, tuple[str, ...]] = {
    MediaType.VIDEO: ("dynamic", "fixed"),
    MediaType.AUDIO: ("fixed",),
}
_NAMES = frozenset({"startSec", "endSec", "segmentation", "embeddingOption", "embeddingType", "embeddingScope"})

# "6 GB" and "5 MB" are read as in Marengo 2.7.
_LIMITS = Limits(
    size_bytes={MediaType.VIDEO: 6 * GIBIBYTE, MediaType.AUDIO: 6 * GIBIBYTE, MediaType.IMAGE: 5 * MEBIBYTE},
    text_tokens=500,
)


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

    def parameters(self, media_type: MediaType, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the complete parameters of a request; what is not sent has Bedrock's own default."""
        check = Checker(_DOCUMENTATION)
        timed = media_type in _OPTIONS
        check.names(given, _NAMES if timed else (), f"Marengo 3.0 for {media_type}")
        if not timed:
            return {}
        options = check.subset(given, "embeddingOption", _OPTIONS[media_type])
        types = check.subset(given, "embeddingType", _TYPES) if "embeddingType" in given else ["separate_embedding"]
        if "fused_embedding" in types and len(options) < 2:
            raise check.error("embeddingType", "fused_embedding needs at least two values of embeddingOption")
        start = check.number(given, "startSec", least=0)
        end = check.number(given, "endSec", least=0)
        if end is not None and end <= (start or 0.0):
            raise check.error("endSec", f"must be greater than startSec, which is {start or 0.0:g} (found {end:g})")
        values = {
            "startSec": start,
            "endSec": end,
            "segmentation": _segmentation(check, given, media_type),
            "embeddingOption": options,
            "embeddingType": types,
            # Bedrock's default is not documented, so it is always said.
            "embeddingScope": check.subset(given, "embeddingScope", _SCOPES),
        }
        return {name: value for name, value in values.items() if value is not None}

    def rejection(self, media: MediaObject) -> Reason | None:
        """Return why the model can't take an object, as far as its listing tells."""
        return rejection_by_size(media, self.limits)

    def model_input(
        self, media: MediaObject, parameters: Mapping[str, Any], *, bucket_owner: str | None, text: str | None
    ) -> dict[str, Any]:
        """Return the request body, nested under its input type."""
        kind = media.media_type.value
        if media.media_type is MediaType.TEXT:
            return {"inputType": kind, kind: {"inputText": text}}
        location = {"uri": media.uri} | ({"bucketOwner": bucket_owner} if bucket_owner else {})
        return {"inputType": kind, kind: {"mediaSource": {"s3Location": location}, **parameters}}


def _segmentation(check: Checker, given: Mapping[str, Any], media_type: MediaType) -> dict[str, Any] | None:
    segmentation = given.get("segmentation")
    if segmentation is None:
        return None
    if not isinstance(segmentation, Mapping):
        raise check.error("segmentation", f"must be a mapping with a method (found {segmentation!r})")
    methods = _METHODS[media_type]
    if segmentation.get("method") not in methods:
        found = segmentation.get("method")
        raise check.error("segmentation", f"method must be one of {', '.join(methods)} (found {found!r})")
    method = str(segmentation["method"])
    check.names(segmentation, {"method", method}, f"segmentation with the method {method}")
    details = segmentation.get(method, {})
    if not isinstance(details, Mapping):
        raise check.error("segmentation", f"{method} must be a mapping (found {details!r})")
    name, least, most = ("minDurationSec", 1, 5) if method == "dynamic" else ("durationSec", 1, 10)
    check.names(details, {name}, f"segmentation.{method}")
    value = check.number(details, name, least=least, most=most, whole=True)
    return {"method": method} | ({method: {name: value}} if value is not None else {})


MODEL = Marengo30()
