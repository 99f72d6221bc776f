"""What a model says of the segments that a request gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Track(StrEnum):
    """What of a file an embedding option is made from."""

    PICTURE = "picture"
    SOUND = "sound"
    SPEECH = "speech"
    """There need not be any, and there are gaps in it."""
    SEVERAL = "several"
    """Fused from several; what it covers is not documented."""


@dataclass(frozen=True, slots=True)
class SegmentRules:
    """What the output of a request has to hold. Times are in seconds."""

    options: Mapping[str, Track] = field(default_factory=dict)
    """The embedding options that were asked for; none for media without time, which have one row."""
    scopes: frozenset[str] = frozenset({"clip"})
    start_sec: float = 0.0
    end_sec: float | None = None
    fixed_sec: float | None = None
    """The length of every segment but the last; None where the model chooses."""
    tolerance_sec: float = 1.0
