"""Puts costs into a plan: estimates every planned object, and leaves to later runs what the budget does not take."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from media_embeddings.budgets import Budget, allot, notices
from media_embeddings.costs import Estimates, Estimator, text_amount
from media_embeddings.library import Library
from media_embeddings.models.protocol import EmbeddingModel
from media_embeddings.planning import Decisions, PlannedObject, SettledObject, Status
from media_embeddings.reasons import Reason, ReasonCode
from media_embeddings.spending import Spending, paid_requests, read_spending
from media_embeddings.tables import Tables

logger = logging.getLogger(__name__)

# What was left before anything was asked of Bedrock has cost nothing.
_NEVER_STARTED = frozenset(
    {ReasonCode.BUDGET, ReasonCode.NOT_APPROVED, ReasonCode.LIMIT, ReasonCode.DRY_RUN, ReasonCode.RELEASED}
)


@dataclass(frozen=True, slots=True)
class Costed:
    """Decisions within the budget, with what they cost."""

    decisions: Decisions
    estimates: Estimates
    notices: tuple[str, ...] = ()


def estimator(library: Library, model: EmbeddingModel, spending: Spending | None = None) -> Estimator:
    """Return what estimates objects with a library's prices and assumptions."""
    return Estimator(
        price=library.price_list(model).price(library.region),
        assumptions=library.cost_assumptions,
        longest=model.limits.duration_sec,
        rates=spending.rates if spending else {},
    )


def with_costs(
    tables: Tables,
    library: Library,
    model: EmbeddingModel,
    run_id: str,
    decisions: Decisions,
    *,
    now: datetime,
    planned_usd: float = 0.0,
) -> Costed:
    """Estimate what is planned, and settle as ``deferred`` what the budget leaves to later runs.

    :param planned_usd: what other plans of this run are going to spend under the same budget.
    :raises WrongSettingError: if a limit of costs is set and the model has no price for media of the library.
    """
    if library.limits_costs:
        library.require_prices(model)
    spending = read_spending(tables, model.name, library.name, run_id, now)
    costs = estimator(library, model, spending)
    planned = [costs.estimated(one, text_amount(one)) for one in _with_paid(tables, decisions.planned)]
    budget = Budget(
        run_usd=library.max_cost_usd_per_run,
        month_usd=library.max_cost_usd_per_month,
        spent_in_run_usd=spending.run_usd + planned_usd,
        spent_in_month_usd=spending.month_usd + planned_usd,
    )
    allotment = allot(planned, budget)
    prices = library.price_list(model)
    estimates = Estimates(
        by_media_type=costs.summary(allotment.taken, allotment.left_out, library.max_in_flight),
        price_as_of=prices.as_of.isoformat(),
        price_source=prices.source,
        price_confirmed=prices.confirmed,
        month=spending.month,
        month_usd=max(0.0, spending.month_usd - spending.run_usd),
    )
    left_out = (_left_out(one) for one in allotment.left_out)
    return Costed(
        replace(decisions, planned=allotment.taken, settled=(*decisions.settled, *left_out)),
        estimates,
        tuple(notices(allotment, budget)),
    )


def _with_paid(tables: Tables, planned: Sequence[PlannedObject]) -> Sequence[PlannedObject]:
    """Mark the attempts that Bedrock has taken already, as those that were in progress at a deadline."""
    may_be_paid = {
        one.request_id: one.media.uri
        for one in planned
        if one.deferred_for is not None and one.deferred_for not in _NEVER_STARTED
    }
    if not may_be_paid:
        return planned
    paid = paid_requests(tables, sorted(may_be_paid.values()), frozenset(may_be_paid))
    return [replace(one, is_paid_for=True) if one.request_id in paid else one for one in planned]


def _left_out(planned: PlannedObject) -> SettledObject:
    media = planned.media
    message = f"left to a later run by the budget; an attempt costs about {planned.to_pay_usd:.4f} USD"
    return SettledObject(
        media_uri=media.uri,
        media_type=media.media_type,
        status=Status.DEFERRED,
        reason=Reason(ReasonCode.BUDGET, message),
        etag=media.etag,
        size_bytes=media.size_bytes,
        last_modified=media.last_modified,
        embedding_key=planned.embedding_key,
        # It is the number of the attempt that the next run goes on with.
        attempts=planned.attempt,
        is_news=planned.deferred_for is not ReasonCode.BUDGET,
        request_id=planned.request_id,
        estimated_cost_usd=planned.estimated_cost_usd,
    )
