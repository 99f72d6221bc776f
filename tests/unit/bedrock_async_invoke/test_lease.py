from __future__ import annotations

import json

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.strategies import booleans, floats, integers

from bedrock_async_invoke import lease as lease_module
from bedrock_async_invoke.lease import Lease, LeaseRecord
from tests.unit.bedrock_async_invoke.fake_aws import Clock, FakeBedrock, FakeClients

URI = "s3://tables/submitter/lease.json"


@pytest.fixture
def lease(clients):
    def lease(owner: str, seconds: float = 30.0) -> Lease:
        return Lease(clients, URI, owner, seconds)

    return lease


def record(clients) -> LeaseRecord:
    return LeaseRecord.of(clients.objects[URI])


def test_the_first_who_comes_takes_it_and_another_does_not(lease):
    assert lease("a").hold()
    assert not lease("b").hold()


def test_it_is_renewed_when_a_third_of_its_time_is_over_and_not_before(lease, clients, clock):
    mine = lease("a")
    assert mine.hold()
    clock.sleep(9)
    assert mine.hold()
    assert record(clients).writes == 1
    clock.sleep(2)
    assert mine.hold()
    assert record(clients).writes == 2


def test_a_holder_that_renews_keeps_it_for_as_long_as_it_likes(lease, clock):
    mine, other = lease("a"), lease("b")
    for _ in range(100):
        assert mine.hold()
        assert not other.hold()
        clock.sleep(9)


def test_one_that_is_not_renewed_is_taken_over_with_a_higher_fence(lease, clock):
    mine, other = lease("a"), lease("b")
    assert mine.hold()
    clock.sleep(31)
    assert not mine.holds
    assert not other.hold()
    clock.sleep(2)
    assert other.hold()
    assert (mine.fence, other.fence) == (1, 2)
    assert other.last_words is None


def test_one_that_was_taken_for_dead_finds_itself_fenced_off(lease, clock):
    mine, other = lease("a"), lease("b")
    assert mine.hold()
    clock.sleep(40)
    assert other.hold()
    assert not mine.hold()
    assert not mine.holds


def test_one_that_was_released_is_taken_at_once_with_the_last_words(lease):
    mine, other = lease("a"), lease("b")
    assert mine.hold()
    mine.release({"arn": "2026-11-23"})
    assert other.hold()
    assert other.last_words == {"arn": "2026-11-23"}
    assert not mine.hold()


def test_a_holder_that_has_lost_it_can_not_release_it(lease, clients, clock):
    mine, other = lease("a"), lease("b")
    assert mine.hold()
    clock.sleep(40)
    assert other.hold()
    mine.release({})
    assert not record(clients).released


def test_a_renewal_between_a_look_and_a_take_over_wins(lease, clients, clock):
    mine, other = lease("a"), lease("b")
    assert mine.hold()
    clock.sleep(40)
    read = clients.read_object

    def read_then_renewed(uri):
        found = read(uri)
        clients.read_object = read
        assert mine.hold()
        return found

    clients.read_object = read_then_renewed
    assert not other.hold()
    assert mine.holds


def test_a_renewal_whose_answer_was_lost_is_found_to_have_been_made(lease, clients, clock):
    mine = lease("a")
    assert mine.hold()
    clock.sleep(15)
    write = clients.write_if

    def written_without_answer(uri, content, *, etag):
        clients.write_if = write
        write(uri, content, etag=etag)
        raise ConnectionResetError

    clients.write_if = written_without_answer
    with pytest.raises(ConnectionResetError):
        mine.hold()
    assert mine.hold()
    assert mine.fence == 1


def test_what_it_says_is_json_that_people_can_read(lease, clients):
    lease("host-17").hold()
    assert json.loads(clients.objects[URI])["owner"] == "host-17"


class SkewedClock(Clock):
    """A process's own clock: set to anything, and it may stop for a while as it does for a stopped process."""

    def __init__(self, world: Clock, offset: float) -> None:
        self._world, self._offset = world, offset

    @property
    def now(self) -> float:
        return self._world.now + self._offset


class TwoProcesses(RuleBasedStateMachine):
    """Whatever the clocks show, and however long a process is stopped, two never hold it at once."""

    @initialize(offsets=integers(-100_000, 100_000))
    def begin(self, offsets: int) -> None:
        self.world = Clock()
        self.clients = FakeClients(FakeBedrock(self.world))
        self.clocks = [SkewedClock(self.world, 0.0), SkewedClock(self.world, float(offsets))]
        self.leases = [Lease(self.clients, URI, name, 30.0) for name in ("a", "b")]
        self.fences: list[int] = []

    def as_process(self, number: int, action) -> object:
        before = lease_module.time
        lease_module.time = self.clocks[number]
        try:
            return action()
        finally:
            lease_module.time = before

    @rule(seconds=floats(0.1, 50))
    def time_passes(self, seconds: float) -> None:
        self.world.sleep(seconds)

    @rule(second=booleans())
    def one_tries_to_hold(self, second: bool) -> None:
        lease = self.leases[second]
        if self.as_process(second, lease.hold):
            self.fences.append(lease.fence)

    @rule(second=booleans())
    def one_lets_go(self, second: bool) -> None:
        self.as_process(second, lambda: self.leases[second].release({}))

    @invariant()
    def at_most_one_holds(self) -> None:
        if hasattr(self, "leases"):
            assert sum(bool(self.as_process(n, lambda n=n: self.leases[n].holds)) for n in (0, 1)) <= 1

    @invariant()
    def fences_never_go_back(self) -> None:
        assert getattr(self, "fences", []) == sorted(getattr(self, "fences", []))


TestTwoProcesses = TwoProcesses.TestCase
TestTwoProcesses.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
