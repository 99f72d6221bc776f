"""The kill points: at which call of a run, and which process is killed then.

A step is data: which call it is known by, and whether it is stopped before it is made or after it was answered. A new one
(another record, another call) is a new entry.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from tests.crash.breakpoint_proxy import When

SEED = 20261123

# The folders of a library, as they stand in the path of a call.
_WORK = "/crash-embeddings/LIBRARY/work"
_TABLES = "/crash-embeddings/LIBRARY/tables"
_BATCH = rf"{_WORK}/runs/.*/plans/[0-9a-f]+/batches/[a-z0-9-]+"
_FIRST_COMMIT = r"_delta_log/0{19}1\.json$"


class Victim(StrEnum):
    """What is killed, with SIGKILL; or stopped, which looks the same to everybody else for a while."""

    SCHEDULER = "scheduler"
    """The scheduler alone: the workers and tasks that it has started go on, as orphans."""
    TRIGGERER = "triggerer"
    """The triggerer with the process that runs its triggers."""
    TASK = "task"
    """The process that makes the call: that of the task, whose supervisor stays, or the one that runs the triggers."""
    ALL = "all"
    """Scheduler with workers and tasks, triggerer, DAG processor, API server."""
    STOPPED = "stopped"
    """The triggerer with all its processes, with SIGSTOP, until another one has taken over and recorded what it started."""


@dataclass(frozen=True)
class Step:
    """A moment of a run, known by a call.

    :param path: a regular expression; ``LIBRARY`` in it stands for the name of the point's library.
    :param nth: which of the calls that match, counted from 1.
    :param made_by: whose calls count; everybody's do without it.
    :param answer_is_lost: whether the caller is not told the answer even if it lives on.
    :param seconds_per_job: how long Bedrock takes, so that the moment comes at all.
    :param library: settings of the library without which the moment does not come.
    """

    name: str
    service: Literal["s3", "bedrock"]
    method: str
    path: str
    when: When
    nth: int = 1
    made_by: Literal["task", "triggerer"] | None = None
    answer_is_lost: bool = False
    seconds_per_job: float = 1.0
    library: Mapping[str, object] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Circumstances:
    """How Bedrock behaves in a point: settings of the simulator."""

    name: str
    settings: Mapping[str, float | None] = field(hash=False)


USUAL = Circumstances("", {"token_lifetime_seconds": None, "list_delay_seconds": 0.0})
FORGETFUL = Circumstances("forgetful", {"token_lifetime_seconds": 0.0, "list_delay_seconds": 1.0})
"""Tokens are not honoured, and the list shows a job a second late."""


@dataclass(frozen=True)
class Point:
    """A kill at a step."""

    step: Step
    victim: Victim
    circumstances: Circumstances = USUAL

    @property
    def name(self) -> str:
        """The point's name, such as ``after-list-scheduler``."""
        return "-".join(filter(None, (self.step.name, self.victim, self.circumstances.name)))

    @property
    def library(self) -> str:
        """The name of the library that only this point runs."""
        return re.sub(r"[^a-z0-9]", "_", self.name)

    @property
    def path(self) -> str:
        """The regular expression for the path of the call."""
        return self.step.path.replace("LIBRARY", self.library)


_SUBMITTING = (
    Step("between-starts", "bedrock", "POST", r"^/async-invoke$", When.BEFORE, nth=2),
    Step("start-unrecorded", "bedrock", "POST", r"^/async-invoke$", When.AFTER, nth=2, answer_is_lost=True),
    Step("first-start-unrecorded", "bedrock", "POST", r"^/async-invoke$", When.AFTER, answer_is_lost=True),
)
_SUBMITTER = r"/crash-embeddings/reference/tables/submitters/.*"
_INTENT = rf"{_TABLES}/intents/[0-9a-f]+$"
STEPS = (
    Step("after-list", "s3", "PUT", rf"{_WORK}/runs/.*/listing\.parquet$", When.AFTER),
    Step("in-plan", "s3", "PUT", rf"{_BATCH}/requests\.jsonl$", When.AFTER),
    Step("after-plan", "s3", "PUT", rf"{_WORK}/runs/.*/plan\.json$", When.AFTER),
    Step("ticket-written", "s3", "PUT", rf"{_SUBMITTER}/tickets/[0-9a-f]+\.json$", When.AFTER),
    Step("lease-taken", "s3", "PUT", rf"{_SUBMITTER}/lease\.json$", When.AFTER),
    # Of the first request the intent is written twice, with its invocation the second time.
    Step("intent-declared", "s3", "PUT", _INTENT, When.AFTER, nth=3),
    Step("invocation-in-intent", "s3", "PUT", _INTENT, When.AFTER, nth=2),
    *_SUBMITTING,
    Step("starts-recorded", "s3", "PUT", rf"{_BATCH}/invocations\.jsonl$", When.AFTER),
    Step("waiting", "bedrock", "GET", r"^/async-invoke\?", When.BEFORE, made_by="triggerer", seconds_per_job=9.0),
    Step("before-statuses", "s3", "PUT", rf"{_BATCH}/statuses\.jsonl$", When.BEFORE),
    Step("in-merge", "s3", "GET", rf"{_WORK}/outputs/.*/output\.json$", When.BEFORE, nth=2),
    Step("rows-uncommitted", "s3", "PUT", rf"{_TABLES}/embeddings/.*/part-[^/]*\.parquet", When.AFTER),
    Step("rows-committed", "s3", "PUT", rf"{_TABLES}/embeddings/.*/{_FIRST_COMMIT}", When.AFTER),
    Step("ledger-committed", "s3", "PUT", rf"{_TABLES}/media/{_FIRST_COMMIT}", When.AFTER),
    Step("before-outcomes", "s3", "PUT", rf"{_BATCH}/outcomes\.parquet$", When.BEFORE),
    Step("in-report", "s3", "PUT", rf"{_WORK}/runs/.*/report\.json$", When.BEFORE),
)
"""In the order in which a run comes to them."""

_AT_ONCE = {"processing": "sync", "invoke_timeout_seconds": 5, "media_types": {"image": [".png"], "text": [".txt"]}}
INVOKE_STEPS = (
    Step("invoke-declared", "s3", "PUT", _INTENT, When.AFTER, nth=2, made_by="task", library=_AT_ONCE),
    Step(
        *("invoke-unanswered", "bedrock", "POST", r"^/model/.*/invoke$", When.AFTER),
        nth=2,
        answer_is_lost=True,
        library=_AT_ONCE,
    ),
    Step("answer-kept", "s3", "PUT", rf"{_WORK}/outputs/.*/output\.json$", When.AFTER, nth=2, library=_AT_ONCE),
)
"""Those of a library whose images and texts go through InvokeModel, which no trigger has a part in."""

KILLED = (Victim.SCHEDULER, Victim.TRIGGERER, Victim.TASK, Victim.ALL)
POINTS: tuple[Point, ...] = (
    *(Point(step, victim) for step in STEPS for victim in KILLED),
    *(Point(step, victim, FORGETFUL) for step in _SUBMITTING for victim in KILLED),
    *(Point(step, victim) for step in INVOKE_STEPS for victim in KILLED if victim is not Victim.TRIGGERER),
)

_DECLARED = Step(
    "before-start",
    "s3",
    "PUT",
    # The last call before the second Start.
    _INTENT,
    When.AFTER,
    nth=3,
    made_by="triggerer",
)
STOPPED_POINTS = (Point(_DECLARED, Victim.STOPPED), Point(_DECLARED, Victim.STOPPED, FORGETFUL))
"""A submitter that comes back with what it knew of before its successor began."""

SHORT_SET = ("start-unrecorded-task", "rows-committed-all")
"""What ``make test`` runs: where a kill costs most, of the process that pays, and of everything at once."""


def in_order(points: Sequence[Point], seed: int = SEED) -> list[Point]:
    """Return the points in an order that the seed determines, so that none profits from what went before it."""
    return random.Random(seed).sample(points, len(points))


def part(points: Sequence[Point], share: str | None) -> list[Point]:
    """Return a share of the points, such as ``"2/4"``; all without one.

    :raises ValueError: if it is no share.
    """
    if not share:
        return list(points)
    number, _, count = share.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ValueError(f"CRASH_PART is a part and the number of parts, such as 2/4, not {share!r}")
    return list(points[int(number) - 1 :: int(count)])


def named(name: str) -> Point:
    """Return the point of this name."""
    return next(point for point in (*POINTS, *STOPPED_POINTS) if point.name == name)
