"""What an attempt came to, from what became of it, and how much of that its run has spent. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from media_embeddings import outcomes
from media_embeddings.batch_outputs import Outcome, PartOutcome
from media_embeddings.cost_assumptions import CostAssumptions
from media_embeddings.costs import cost_usd
from media_embeddings.media import MediaType
from media_embeddings.models.prices import Price
from media_embeddings.planning import Status

# As the start task names what became of a request.
_NOT_TAKEN = frozenset({"refused", "unanswered"})
_REUSED, _ADOPTED = "reused", "adopted"


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run has spent on an attempt."""

    usd: float = 0.0
    unsettled_usd: float = 0.0
    """How much of it is an estimate, since the invocation has not ended."""


@dataclass(frozen=True, slots=True)
class AttemptCosts:
    """Tells the costs of attempts by the prices and assumptions of a library.

    :param listed_at: when the run's listing was begun: what was submitted earlier was spent by another run.
    """

    price: Price
    assumptions: CostAssumptions
    listed_at: datetime

    def actual_usd(self, outcome: Outcome, part: PartOutcome) -> float | None:
        """Return what a request has cost; None where that is not known, as while its invocation is in progress.

        A completed one costs what its output covers; where that can't be read, or tells no duration, its estimate. Of one
        that has failed AWS does not say: the library's setting does. What Bedrock has not taken costs nothing.
        """
        if not _is_taken(part):
            return 0.0
        match part.ended and part.ended.status:
            case outcomes.COMPLETED:
                return self._of_output(outcome)
            case outcomes.FAILED:
                estimated = estimated_usd(outcome)
                return None if estimated is None else estimated * self.assumptions.failed_billed_share
            case _:
                return None

    def _of_output(self, outcome: Outcome) -> float | None:
        estimated = estimated_usd(outcome)
        # How much text there was is known from the plan alone.
        if outcome.status is not Status.EMBEDDED or outcome.planned.media.media_type is MediaType.TEXT:
            return estimated
        by_output = cost_usd(outcome.planned.media, self.price, self.assumptions, seconds=outcome.duration_sec)
        return estimated if by_output is None else by_output

    def spent(self, outcome: Outcome) -> Spent:
        """Return what the run has spent on an attempt: nothing on what an earlier one has submitted."""
        spent = [self._spent(outcome, one) for one in outcome.parts]
        return Spent(sum(one.usd for one in spent), sum(one.unsettled_usd for one in spent))

    def _spent(self, outcome: Outcome, part: PartOutcome) -> Spent:
        if not _is_taken(part) or not self._is_of_run(part):
            return Spent()
        actual = self.actual_usd(outcome, part)
        if actual is not None:
            return Spent(actual)
        estimated = estimated_usd(outcome) or 0.0
        return Spent(estimated, estimated)

    def _is_of_run(self, part: PartOutcome) -> bool:
        begun = part.invocation.outcome if part.invocation else _REUSED
        if begun != _ADOPTED:
            return begun != _REUSED
        # Adopted: the run's own after a kill, or an earlier one's.
        times = [one.submitted_at for one in (part.ended, part.invocation) if one is not None]
        submitted = next((time for time in times if time is not None), None)
        return submitted is not None and submitted >= self.listed_at


def estimated_usd(outcome: Outcome) -> float | None:
    """Return what each request of an attempt costs by estimate: of several, those that were to be made cost the same."""
    estimated = outcome.planned.estimated_cost_usd
    asked = sum(one.part.finished_output_uri is None for one in outcome.parts)
    return None if estimated is None else estimated / max(1, asked)


def _is_taken(part: PartOutcome) -> bool:
    return part.invocation is not None and part.invocation.outcome not in _NOT_TAKEN
