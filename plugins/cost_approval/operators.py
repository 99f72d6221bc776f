"""The operator that lets plans through whose cost is low enough, and asks a person about the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from airflow.providers.standard.operators.hitl import HITLOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class PlanCost(TypedDict):
    """What a plan costs, as the task that made it pushes it under the XCom key ``cost``."""

    usd: float
    text: str
    """For people, in Markdown."""


class Approval(TypedDict):
    """What came of the question, under the XCom key ``approval``."""

    approved: bool
    usd: float
    by: str | None
    """Who answered; None where nobody was asked, or nobody answered in time."""


class ApproveCostOperator(HITLOperator):
    """Return the batches of a plan if its cost is approved, and none if it is not.

    At or below ``approve_above_usd`` nobody is asked. Above it the task waits without a slot for a person's answer, which
    Airflow shows under "Required Actions". No answer in time is a no. Either way the task succeeds: whoever expands over
    what it returns has nothing to do after a no. Cleared, it asks again.

    One question stands for all plans of a run. The list of the first one is what it returns; a task that hands on another
    one reads the XCom ``approval`` of this one.

    :param plan_task_ids: The tasks that made the plans. Each has pushed its cost, a :class:`PlanCost`, under the XCom key
        ``cost``; the first one has returned the list that this operator hands on.
    :param approve_above_usd: Up to which sum of all plans nobody is asked.
    :param what: What is to be paid for, for the question's headline.
    :param response_timeout: How long the answer is waited for. (default: for ever)
    """

    APPROVE = "Approve"
    REJECT = "Reject"

    def __init__(self, *, plan_task_ids: Sequence[str], approve_above_usd: float, what: str, **kwargs: Any) -> None:
        super().__init__(
            subject=f"{what}: approve the estimated cost?",
            options=[self.APPROVE, self.REJECT],
            defaults=[self.REJECT],
            **kwargs,
        )
        self.plan_task_ids = list(plan_task_ids)
        self.approve_above_usd = approve_above_usd
        self.what = what

    def execute(self, context: Context) -> list[str]:
        """Hand on the batches, or ask."""
        costs = self._costs(context)
        usd = sum(cost["usd"] for cost in costs)
        if usd <= self.approve_above_usd:
            self.log.info("%.2f USD are not above %.2f USD: nobody is asked", usd, self.approve_above_usd)
            return self._answered(context, approved=True, by=None)
        self.subject = f"{self.what}: approve about {usd:.2f} USD?"
        limit = f"More than {self.approve_above_usd:.2f} USD is approved by a person. Nothing is submitted before."
        self.body = "\n\n".join([limit, *(cost["text"] for cost in costs)])
        super().execute(context)
        raise AssertionError("waiting for an answer does not return")

    def execute_complete(self, context: Context, event: dict[str, Any]) -> list[str]:
        """Hand on the batches if the answer is yes."""
        answer = super().execute_complete(context, event)
        responder = answer["responded_by_user"]
        approved = answer["chosen_options"] == [self.APPROVE]
        by = None if responder is None else str(responder["name"])
        self.log.info("%s by %s", "approved" if approved else "not approved", by or "nobody in time")
        return self._answered(context, approved=approved, by=by)

    def _answered(self, context: Context, *, approved: bool, by: str | None) -> list[str]:
        usd = sum(cost["usd"] for cost in self._costs(context))
        approval = Approval(approved=approved, usd=usd, by=by)
        context["ti"].xcom_push(key="approval", value=dict(approval))
        manifests = context["ti"].xcom_pull(task_ids=self.plan_task_ids[0])
        return list(manifests) if approved else []

    def _costs(self, context: Context) -> list[PlanCost]:
        pulled = (context["ti"].xcom_pull(task_ids=task_id, key="cost") for task_id in self.plan_task_ids)
        return [cost for cost in pulled if cost is not None]
