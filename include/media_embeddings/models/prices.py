"""What a model costs, as its data file says: ``<module>.prices.yaml`` beside the model's module, with date and source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any


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
    confirmed: bool = True
    """Whether the source is AWS's own price page."""

    def price(self, region: str) -> Price:
        """Return the prices in a region."""
        return self.by_region.get(region) or self.by_region["*"]


@cache
def price_list(module_file: str) -> PriceList:
    """Return the prices that lie beside a model's module, as they were when they were first asked for.

    :param module_file: the module's ``__file__``.
    :raises ValueError: naming the file and what is wrong in it.
    """
    # Reading prices is not part of parsing a DAG.
    import yaml

    path = Path(module_file).with_suffix(".prices.yaml")
    try:
        return _price_list(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no list of prices: {type(error).__name__}: {error}") from error


def _price_list(value: Mapping[str, Any]) -> PriceList:
    as_of, source, confirmed = value["as_of"], value["source"], value["confirmed"]
    if not isinstance(as_of, date) or not isinstance(source, str) or not isinstance(confirmed, bool):
        raise TypeError("as_of is a date, source a text, confirmed true or false")
    if "*" not in value["by_region"]:
        raise ValueError('by_region has no "*", the price where no other is named')
    return PriceList(as_of, source, {str(region): _price(one) for region, one in value["by_region"].items()}, confirmed)


def _price(value: Mapping[str, Any]) -> Price:
    units = [one.name for one in fields(Price)]
    for unit, dollars in value.items():
        if unit not in units:
            raise ValueError(f"{unit} is no unit of a price; there are {', '.join(units)}")
        if isinstance(dollars, bool) or not isinstance(dollars, (int, float)) or dollars < 0:
            raise ValueError(f"{unit} is an amount of US dollars, not {dollars!r}")
    return Price(**{unit: float(dollars) for unit, dollars in value.items()})
