"""What Bedrock shows late, once only, or not at all."""

from __future__ import annotations

import itertools

import pytest

from bedrock_async_invoke.submitter import ManifestSubmission, Submission, submit_blocking
from bedrock_async_invoke.watcher import Watch, Watcher
from tests.unit.bedrock_async_invoke.fake_aws import (
    MANIFEST,
    MODEL,
    THROTTLED,
    TIMED_OUT,
    UNAVAILABLE,
    LostAnswer,
    request,
)


def submit(clients, count: int, **options: object) -> None:
    clients.put_requests(*map(request, range(count)))
    submit_blocking(ManifestSubmission(clients, Submission(model_id=MODEL, manifest_uri=MANIFEST, **options)))


def watcher(clients, seconds: float) -> Watcher:
    return Watcher(clients, Watch(manifest_uri=MANIFEST, timeout_seconds=seconds))


def starts_of(bedrock, token: str) -> int:
    return sum(name == "start" and made["client_request_token"] == token for name, made in bedrock.calls)


@pytest.mark.parametrize("max_in_flight", [None, 3])
@pytest.mark.parametrize("list_delay", [0.0, 4.0, 8.0, 9.9])
def test_a_lost_answer_is_not_repeated_while_the_list_may_still_lag(clients, bedrock, max_in_flight, list_delay):
    """The token is the second line of defence only: how long Bedrock honours it is documented nowhere."""
    bedrock.list_delay = list_delay
    bedrock.start_faults.append(LostAnswer(TIMED_OUT))
    submit(clients, 1, max_in_flight=max_in_flight)

    assert starts_of(bedrock, "request-0") == 1
    assert clients.lines("invocations.jsonl")["request-0"]["outcome"] == "adopted"


def test_the_last_look_asks_for_all_that_the_list_does_not_show(clients, bedrock, clock):
    submit(clients, 1)
    bedrock.jobs["request-0"].hidden = True
    clock.sleep(7200)
    one = watcher(clients, 3600)

    assert one.step() is None
    assert one.summary()["completed"] == 1


def test_a_list_that_stays_throttled_ends_the_wait_soon_after_the_deadline(clients, bedrock, clock):
    submit(clients, 1)
    before = clock.now
    one = watcher(clients, 3600)
    for _ in itertools.count():
        assert clock.now - before < 7200, "the deadline is over for an hour"
        bedrock.list_faults.append(THROTTLED)
        if (seconds := one.step()) is None:
            break
        clock.sleep(seconds)

    assert clock.now - before >= 3600
    assert one.summary()["in_progress"] == 1


def test_an_invocation_that_get_fails_over_hides_none_of_those_behind_it(clients, bedrock, clock):
    submit(clients, 3)
    for job in bedrock.jobs.values():
        job.hidden = True
    first, answer = min(job.arn for job in bedrock.jobs.values()), bedrock.get_async_invoke

    def get(arn: str) -> dict:
        if arn == first:
            raise UNAVAILABLE
        return answer(arn)

    bedrock.get_async_invoke = get
    clock.sleep(60)
    one = watcher(clients, 3600)
    for _ in range(5):
        one.step()

    assert one.summary()["completed"] == 2
