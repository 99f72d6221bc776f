"""What an object costs: the estimate before it is bought, and what its output says that it came to. Pure.

Bedrock answers no request with a price, and no bill names an object: both figures are the model's price for what is known
of the object.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

from media_embeddings.cost_assumptions import CostAssumptions
from media_embeddings.media import MediaObject, MediaType, Processing
from media_embeddings.models.prices import Price
from media_embeddings.planning import PlannedObject

TIMED = frozenset({MediaType.VIDEO, MediaType.AUDIO})
"""The media types that are billed by their duration."""
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class TextAmount:
    """How much text an object has: in how many requests it is sent, with how many characters altogether."""

    requests: int
    characters: int


def text_amount(planned: PlannedObject) -> TextAmount | None:
    """Return how much text a planned object still has to be sent; None where it was not cut into parts."""
    if not planned.parts:
        return None
    wanted = [one for one in planned.parts if one.finished_output_uri is None] or planned.parts
    return TextAmount(len(wanted), sum((one.end_char or 0) - (one.start_char or 0) for one in wanted))


@dataclass(frozen=True, slots=True)
class Duration:
    """How long an object is, or may be."""

    seconds: float
    is_known: bool
    """Whether its header says so; else it is estimated from its size."""


def duration(
    planned: PlannedObject, assumptions: CostAssumptions, longest: Mapping[MediaType, float] | None = None
) -> Duration | None:
    """Return how long an object is; None for media without time.

    :param longest: seconds, by media type, that the model takes: what its header does not tell is not taken for longer.
    """
    media = planned.media
    if media.media_type not in TIMED:
        return None
    if planned.facts is not None and planned.facts.duration_sec is not None:
        return Duration(planned.facts.duration_sec, is_known=not planned.facts.duration_is_estimated)
    is_video = media.media_type is MediaType.VIDEO
    rate = assumptions.video_bytes_per_second if is_video else assumptions.audio_bytes_per_second
    seconds = media.size_bytes / rate
    return Duration(min(seconds, (longest or {}).get(media.media_type, seconds)), is_known=False)


def cost_usd(
    media: MediaObject,
    price: Price,
    assumptions: CostAssumptions,
    *,
    seconds: float | None = None,
    text: TextAmount | None = None,
) -> float | None:
    """Return what one attempt at an object costs; None where the model has no price for it, or the duration is unknown.

    :param seconds: of video and audio. All of them count, also where only a part is asked for: what is billed of a part is
        documented nowhere.
    :param text: of a text; without it one request, of as many characters as the object has bytes.
    """
    match media.media_type:
        case MediaType.VIDEO | MediaType.AUDIO:
            a_second = price.video_second if media.media_type is MediaType.VIDEO else price.audio_second
            return None if a_second is None or seconds is None else a_second * seconds
        case MediaType.IMAGE:
            return price.image
        case MediaType.TEXT:
            text = text or TextAmount(1, media.size_bytes)
            by_request = None if price.text_request is None else price.text_request * text.requests
            if price.text_million_tokens is None:
                return by_request
            tokens = ceil(text.characters / assumptions.characters_per_billed_token)
            return (by_request or 0.0) + price.text_million_tokens * tokens / _MILLION


@dataclass(frozen=True, slots=True)
class Rate:
    """How long invocations take: so many seconds each, and so many for each second of media."""

    seconds_a_job: float
    seconds_a_media_second: float = 0.0
    is_measured: bool = False
    """Whether it comes from earlier invocations, and not from the settings."""


def assumed_rate(media_type: MediaType, assumptions: CostAssumptions) -> Rate:
    """Return how long invocations take as long as none have been seen."""
    of_media = assumptions.seconds_per_media_second if media_type in TIMED else 0.0
    return Rate(assumptions.seconds_per_job, of_media)


@dataclass(frozen=True, slots=True)
class TypeEstimate:
    """What a plan says of one media type before anything is spent."""

    objects: int = 0
    minutes: float = 0.0
    """Of video and audio."""
    usd: float = 0.0
    hours: float = 0.0
    """From the first submission to the last end, as if the window held nothing else."""
    from_size: int = 0
    """Objects whose duration is estimated from their size."""
    paid_for: int = 0
    """Objects that cost nothing again: what Bedrock has taken already."""
    unpriced: int = 0
    """Objects for which the model has no price."""
    left_out: int = 0
    """Objects that the budget leaves to later runs; the other figures are without them."""
    left_out_usd: float = 0.0
    is_measured: bool = False
    """Whether the hours come from earlier invocations."""


@dataclass(frozen=True, slots=True)
class Estimates:
    """What a plan says of costs. Small: it stands in ``plan.json``."""

    by_media_type: Mapping[str, TypeEstimate] = field(default_factory=dict)
    price_as_of: str | None = None
    price_source: str | None = None
    price_confirmed: bool = True
    month: str | None = None
    """The calendar month in UTC that the plan was made in, for example ``2026-11``."""
    month_usd: float = 0.0
    """What was spent in it before this plan, by everything that writes below the tables' root."""

    @classmethod
    def from_dict(cls, value: Mapping[str, Any] | None) -> Estimates:
        """Return the estimates of a ``plan.json``; of an older one there are none."""
        if value is None:
            return cls()
        by_type = {name: TypeEstimate(**one) for name, one in value["by_media_type"].items()}
        return cls(**{**value, "by_media_type": by_type})

    @property
    def usd(self) -> float:
        """Return what the whole plan costs."""
        return sum(one.usd for one in self.by_media_type.values())

    def usd_of(self, objects: int) -> float | None:
        """Return what so many objects cost that are like those of the plan; None where it has none to go by."""
        total = self.total
        known = total.objects + total.left_out - total.paid_for - total.unpriced
        return None if known <= 0 else objects * (total.usd + total.left_out_usd) / known

    @property
    def total(self) -> TypeEstimate:
        """Return all media types together. They share the window, so that their hours add up."""
        every = list(self.by_media_type.values())
        return TypeEstimate(
            objects=sum(one.objects for one in every),
            minutes=sum(one.minutes for one in every),
            usd=self.usd,
            hours=sum(one.hours for one in every),
            from_size=sum(one.from_size for one in every),
            paid_for=sum(one.paid_for for one in every),
            unpriced=sum(one.unpriced for one in every),
            left_out=sum(one.left_out for one in every),
            left_out_usd=sum(one.left_out_usd for one in every),
            is_measured=all(one.is_measured for one in every),
        )


@dataclass(frozen=True, slots=True)
class Estimator:
    """Estimates planned objects with the prices and assumptions of one library and model."""

    price: Price
    assumptions: CostAssumptions
    longest: Mapping[MediaType, float] = field(default_factory=dict)
    """Seconds, by media type, that the model takes."""
    rates: Mapping[MediaType, Rate] = field(default_factory=dict)
    """Measured; what is not there is assumed."""

    def estimated(self, planned: PlannedObject, text: TextAmount | None = None) -> PlannedObject:
        """Return a planned object with what an attempt at it costs."""
        length = duration(planned, self.assumptions, self.longest)
        seconds = None if length is None else length.seconds
        usd = cost_usd(planned.media, self.price, self.assumptions, seconds=seconds, text=text)
        return replace(planned, estimated_cost_usd=usd)

    def summary(
        self, planned: Iterable[PlannedObject], left_out: Iterable[PlannedObject], max_in_flight: int
    ) -> dict[str, TypeEstimate]:
        """Return what a plan costs by media type.

        :param left_out: what the budget leaves to later runs.
        :param max_in_flight: the window.
        """
        kept: dict[MediaType, list[PlannedObject]] = defaultdict(list)
        rest: dict[MediaType, list[PlannedObject]] = defaultdict(list)
        for one in planned:
            kept[one.media.media_type].append(one)
        for one in left_out:
            rest[one.media.media_type].append(one)
        return {
            str(media_type): self._of_type(media_type, kept[media_type], rest[media_type], max_in_flight)
            for media_type in MediaType
            if kept[media_type] or rest[media_type]
        }

    def _of_type(
        self, media_type: MediaType, kept: list[PlannedObject], rest: list[PlannedObject], max_in_flight: int
    ) -> TypeEstimate:
        rate = self.rates.get(media_type) or assumed_rate(media_type, self.assumptions)
        lengths = [duration(one, self.assumptions, self.longest) for one in kept]
        seconds = sum(length.seconds for length in lengths if length is not None)
        # What goes through InvokeModel takes no slot.
        started = sum(one.finished_output_uri is None and one.processing is Processing.ASYNC for one in kept)
        work = rate.seconds_a_job * started + rate.seconds_a_media_second * seconds
        return TypeEstimate(
            objects=len(kept),
            minutes=seconds / 60,
            usd=sum(one.to_pay_usd for one in kept),
            hours=work / max_in_flight / 3600,
            from_size=sum(length is not None and not length.is_known for length in lengths),
            paid_for=sum(one.is_paid_for or one.finished_output_uri is not None for one in kept),
            unpriced=sum(one.estimated_cost_usd is None for one in kept),
            left_out=len(rest),
            left_out_usd=sum(one.to_pay_usd for one in rest),
            is_measured=rate.is_measured,
        )
