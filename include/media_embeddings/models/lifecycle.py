"""When a model is in service, by region. AWS calls a model legacy from the announcement of its end on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum


class Stage(StrEnum):
    """Where a model is in its life: https://docs.aws.amazon.com/bedrock/latest/userguide/model-lifecycle.html ."""

    ACTIVE = "active"
    LEGACY = "legacy"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The end of a model."""

    documentation: str
    """The page that says so."""
    ends: Mapping[str, date] = field(default_factory=dict)
    """By region, the first day without the model; a region that is not named has no announced end."""

    def stage(self, region: str, today: date) -> Stage:
        """Return where the model is in its life on a day."""
        end = self.ends.get(region)
        if end is None:
            return Stage.ACTIVE
        return Stage.ENDED if today >= end else Stage.LEGACY
