"""What is assumed of costs where neither AWS nor the object says: each a setting of the library, with a default.

This is read when a DAG is parsed, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from media_embeddings.media import MediaType
from media_embeddings.models.prices import Price, PriceList

PriceOverrides = Mapping[str, Mapping[str, float]]
"""US dollars by model and unit, as the library's setting ``prices`` gives them."""


class CostAssumptions(BaseModel):
    """The library's setting ``cost_assumptions``. The defaults err towards too much: a plan should not be exceeded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    video_bytes_per_second: Annotated[float, Field(gt=0.0)] = 62_500.0
    """Of videos whose duration is not known: 500 kbit/s, which few are below."""
    audio_bytes_per_second: Annotated[float, Field(gt=0.0)] = 8_000.0
    """Of sound whose duration is not known: 64 kbit/s, which is that of speech."""
    characters_per_billed_token: Annotated[float, Field(gt=0.0)] = 2.0
    """Of texts that are billed by the token: no tokenizer is published."""
    failed_billed_share: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    """How much of its estimate an invocation costs that Bedrock ended as failed: AWS does not say whether it bills it."""
    seconds_per_job: Annotated[float, Field(ge=0.0)] = 30.0
    """How long an invocation takes beside its media's duration, until enough have been seen."""
    seconds_per_media_second: Annotated[float, Field(ge=0.0)] = 2.2
    """How long it takes for each second of media, until enough have been seen. Videos of 3 minutes were reported to take 6 to
    8, of 15 minutes 25 to 35."""


def with_overrides(prices: PriceList, region: str, model_name: str, overrides: PriceOverrides) -> PriceList:
    """Return a model's prices in a region with those that the library sets; the source says which these are."""
    set_here = overrides.get(model_name, {})
    price = replace(prices.price(region), **set_here)
    source = prices.source
    if set_here:
        source += (
            "; " + ", ".join(f"{unit} {usd:g}" for unit, usd in sorted(set_here.items())) + " by the setting prices"
        )
    return replace(prices, source=source, by_region={"*": price})


def units() -> tuple[str, ...]:
    """Return the units in which models are billed."""
    return tuple(asdict(Price()))


def missing_unit(media_type: MediaType, price: Price) -> str | None:
    """Return the unit in which a model would bill such media but has no price for; None where it has one."""
    match media_type:
        case MediaType.VIDEO:
            return "video_second" if price.video_second is None else None
        case MediaType.AUDIO:
            return "audio_second" if price.audio_second is None else None
        case MediaType.IMAGE:
            return "image" if price.image is None else None
        case MediaType.TEXT:
            has_none = price.text_request is None and price.text_million_tokens is None
            return "text_request" if has_none else None
