"""What a model costs, as its data file says: ``<module>.prices.yaml`` beside the model's module, with date and source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for each unit; None where the model does not embed such media, or bills them by another unit."""

    video_second: float | None = None
    audio_second: float | None = None
    image: float | None = None
    text_request: float | None = None
    text_million_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class PriceList:
    """Prices of one model by region, ``*`` for all that are not named."""

    as_of: date
    source: str
    by_region: Mapping[str, Price]

    def price(self, region: str) -> Price:
        """Return the prices in a region."""
        return self.by_region.get(region) or self.by_region["*"]
