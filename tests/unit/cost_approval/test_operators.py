"""Who is asked, and what is handed on after a yes, a no, and no answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskAwaitingInput

from cost_approval.operators import ApproveCostOperator

MANIFESTS = ["s3://work/video-001/requests.jsonl"]
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


class TaskInstance:
    id = "0190-ti"

    def __init__(self, costs: dict[str, Any], manifests: list[str]) -> None:
        self._costs, self._manifests = costs, manifests
        self.pushed: dict[str, Any] = {}

    def xcom_pull(self, *, task_ids: str, key: str = "return_value") -> Any:
        return self._costs.get(task_ids) if key == "cost" else self._manifests

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def context(usd=5.0, *, other=None, manifests=MANIFESTS):
    costs = {"plan": {"usd": usd, "text": "| video | 4 |"}}
    if other is not None:
        costs["plan_next_model"] = {"usd": other, "text": "| image | 9 |"}
    instance = TaskInstance(costs, manifests)
    return {"ti": instance, "task_instance": instance}


@pytest.fixture
def asked(monkeypatch):
    """Return what Airflow is given to ask."""
    questions: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "airflow.providers.standard.operators.hitl.upsert_hitl_detail", lambda **question: questions.append(question)
    )
    return questions


def operator(plans=("plan",), above=4.0):
    return ApproveCostOperator(
        task_id="approve_cost",
        plan_task_ids=plans,
        approve_above_usd=above,
        what="Library films",
        response_timeout=timedelta(hours=2),
    )


def answer(chosen, responder=None):
    return {
        "chosen_options": [chosen],
        "params_input": {},
        "responded_at": NOON,
        "responded_by_user": responder,
        "timedout": responder is None,
    }


@pytest.mark.parametrize("usd", [0.0, 3.99, 4.0])
def test_up_to_the_amount_nobody_is_asked(asked, usd):
    given = context(usd)

    assert operator().execute(given) == MANIFESTS
    assert asked == []
    assert given["ti"].pushed["approval"] == {"approved": True, "usd": usd, "by": None}


def test_above_it_the_task_waits_without_a_slot_and_shows_what_is_to_be_paid_for(asked):
    with pytest.raises(TaskAwaitingInput) as waiting:
        operator().execute(context(4.01))

    assert waiting.value.timeout == timedelta(hours=2)
    [question] = asked
    assert question["subject"] == "Library films: approve about 4.01 USD?"
    assert "| video | 4 |" in question["body"]
    assert question["options"] == ["Approve", "Reject"]
    # What Airflow takes for the answer when there is none in time.
    assert question["defaults"] == ["Reject"]


def test_one_question_stands_for_the_sum_of_all_plans(asked):
    both = operator(("plan", "plan_next_model"))
    assert both.execute(context(2.0, other=2.0)) == MANIFESTS
    with pytest.raises(TaskAwaitingInput):
        both.execute(context(3.0, other=2.0))

    [question] = asked
    assert "5.00 USD" in question["subject"]
    assert "| video | 4 |" in question["body"]
    assert "| image | 9 |" in question["body"]


@pytest.mark.parametrize(
    ("given", "manifests", "approval"),
    [
        (answer("Approve", {"id": "1", "name": "ada"}), MANIFESTS, {"approved": True, "by": "ada"}),
        (answer("Reject", {"id": "1", "name": "ada"}), [], {"approved": False, "by": "ada"}),
        (answer("Reject"), [], {"approved": False, "by": None}),
    ],
    ids=["yes", "no", "no answer"],
)
def test_the_batches_are_handed_on_after_a_yes_alone(given, manifests, approval):
    where = context(9.0)

    assert operator().execute_complete(where, given) == manifests
    assert where["ti"].pushed["approval"] == {"usd": 9.0} | approval
