"""What of a plan fits into the budget: those first that have waited longest, and never more than is left. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil

from media_embeddings.planning import PlannedObject, longest_first

# Sums of binary fractions miss a budget by a hair's breadth; a thousand-millionth of a dollar is below every price.
_NANODOLLARS = 1_000_000_000
_NAMED = 5
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent: each None where there is no limit."""

    run_usd: float | None = None
    month_usd: float | None = None
    spent_in_run_usd: float = 0.0
    """By this very run, as an earlier try of its plan has let it, and by what else it plans."""
    spent_in_month_usd: float = 0.0

    @property
    def is_set(self) -> bool:
        """Return whether there is any limit."""
        return self.run_usd is not None or self.month_usd is not None

    @property
    def left_usd(self) -> float | None:
        """Return what may still be spent; None for any amount."""
        left = [
            limit - spent
            for limit, spent in ((self.run_usd, self.spent_in_run_usd), (self.month_usd, self.spent_in_month_usd))
            if limit is not None
        ]
        return max(0.0, min(left)) if left else None

    @property
    def most_an_object_usd(self) -> float | None:
        """Return what an object may cost at most that fits into a run which does nothing else."""
        limits = [limit for limit in (self.run_usd, self.month_usd) if limit is not None]
        return min(limits) if limits else None


@dataclass(frozen=True, slots=True)
class Allotment:
    """Which planned objects a budget takes, in the order given, and which it leaves, those first that are next."""

    taken: tuple[PlannedObject, ...]
    left_out: tuple[PlannedObject, ...]
    too_dear: tuple[PlannedObject, ...] = ()
    """Those of ``left_out`` that alone cost more than the budget: no later run takes them either."""


def allot(planned: Sequence[PlannedObject], budget: Budget) -> Allotment:
    """Take what fits, those first that have waited longest; what is new comes last, the largest first.

    What does not fit holds up nothing that comes after it and is next in line: it will be first, and then has the whole
    budget. What costs nothing again is always taken.
    """
    if budget.left_usd is None:
        return Allotment(tuple(planned), ())
    left, most = _nano(budget.left_usd), _nano(budget.most_an_object_usd or 0.0)
    taken: set[str] = set()
    left_out: list[PlannedObject] = []
    for one in sorted(planned, key=_longest_waiting):
        cost = _nano(one.to_pay_usd, up=True)
        if cost <= left:
            left -= cost
            taken.add(one.request_id)
        else:
            left_out.append(one)
    return Allotment(
        taken=tuple(one for one in planned if one.request_id in taken),
        left_out=tuple(left_out),
        too_dear=tuple(one for one in left_out if _nano(one.to_pay_usd, up=True) > most),
    )


def _longest_waiting(planned: PlannedObject) -> tuple[datetime, int, str]:
    return (planned.first_seen_at or _NEVER, *longest_first(planned))


def _nano(usd: float, *, up: bool = False) -> int:
    nano = round(usd * _NANODOLLARS, 3)
    return ceil(nano) if up else int(nano)


def notices(allotment: Allotment, budget: Budget) -> Iterable[str]:
    """Yield what a person should know of what the budget has left out."""
    waiting = len(allotment.left_out) - len(allotment.too_dear)
    if waiting:
        usd = sum(one.to_pay_usd for one in allotment.left_out) - sum(one.to_pay_usd for one in allotment.too_dear)
        taken_usd = sum(one.to_pay_usd for one in allotment.taken)
        yield (
            f"the budget leaves {waiting} objects for about {usd:.2f} USD to later runs, those first that have waited "
            f"longest: {_how_long(usd, taken_usd, budget)}. Raise {' or '.join(_settings(budget))} to have them sooner"
        )
    if allotment.too_dear:
        named = ", ".join(f"{one.media.uri} ({one.to_pay_usd:.2f} USD)" for one in allotment.too_dear[:_NAMED])
        more = f" and {len(allotment.too_dear) - _NAMED} more" if len(allotment.too_dear) > _NAMED else ""
        yield (
            f"{len(allotment.too_dear)} objects cost more than the whole budget of "
            f"{budget.most_an_object_usd or 0.0:.2f} USD, each by itself, so that no run takes them: {named}{more}. Raise "
            f"{' or '.join(_settings(budget))}, or exclude them"
        )


def _how_long(usd: float, taken_usd: float, budget: Budget) -> str:
    parts = []
    if budget.run_usd is not None:
        parts.append(f"about {ceil(usd / budget.run_usd)} more runs at {budget.run_usd:.2f} USD a run")
    if budget.month_usd is not None:
        fits = usd <= budget.month_usd - budget.spent_in_month_usd - taken_usd
        months = ceil(usd / budget.month_usd)
        of_month = f"{budget.month_usd:.2f} USD a month"
        parts.append(f"within this month's {of_month}" if fits else f"about {months} more months at {of_month}")
    return ", ".join(parts)


def _settings(budget: Budget) -> Iterable[str]:
    if budget.run_usd is not None:
        yield "max_cost_usd_per_run"
    if budget.month_usd is not None:
        yield "max_cost_usd_per_month"
