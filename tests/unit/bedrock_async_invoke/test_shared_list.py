from __future__ import annotations

import gc
import threading
from datetime import timedelta

import pytest

from bedrock_async_invoke.errors import AsyncInvokeError
from bedrock_async_invoke.polling import ListSince
from bedrock_async_invoke.shared_list import SharedList, shared_list
from bedrock_async_invoke.watcher import Watch, Watcher
from tests.unit.bedrock_async_invoke.fake_aws import MANIFEST, UNAVAILABLE, request


class Member:
    """Somebody who waits for invocations."""

    def __init__(self, subject: SharedList, *arns: str, interval: float = 15.0) -> None:
        self._subject, self._arns, self._interval = subject, frozenset(arns), interval
        self.last = None

    def look(self, after=None):
        wish = ListSince(after, self._arns)
        self.last = self._subject.look(self, wish, since=self.last, interval=self._interval)
        return self.last


@pytest.fixture
def subject(clients, clock) -> SharedList:
    return SharedList(clients)


def looks(bedrock) -> int:
    return bedrock.count("list")


def test_what_one_has_looked_for_another_sees(bedrock, clock, subject):
    first, second = bedrock.add("a").arn, bedrock.add("b").arn
    one, other = Member(subject, first), Member(subject, first)
    Member(subject, second)
    one.look()
    clock.sleep(5)
    look = other.look()
    assert (set(look.found), look.age_seconds, looks(bedrock)) == ({first}, 5.0, 1)


def test_an_old_look_serves_nobody(bedrock, clock, subject):
    arn = bedrock.add("a").arn
    Member(subject, arn).look()
    clock.sleep(8)
    Member(subject, arn).look()
    assert looks(bedrock) == 2


def test_nobody_is_shown_the_same_look_twice(bedrock, subject):
    member = Member(subject, bedrock.add("a").arn)
    member.look()
    member.look()
    assert looks(bedrock) == 2


def test_a_look_that_did_not_look_for_an_invocation_does_not_tell_of_it(bedrock, subject):
    first, second = bedrock.add("a").arn, bedrock.add("b").arn
    Member(subject, first).look()
    assert set(Member(subject, second).look().found) == {second}


def test_a_look_begins_before_the_oldest_that_anybody_waits_for(bedrock, clock, subject):
    old = bedrock.add("a").arn
    long_ago = clock.datetime - timedelta(hours=5)
    first = Member(subject, old)
    first.look(after=long_ago)
    clock.sleep(60)
    new = bedrock.add("b").arn
    second = Member(subject, new)
    look = second.look(after=clock.datetime - timedelta(minutes=1))
    assert set(look.found) == {old, new}
    assert bedrock.calls[-1][1]["submitted_after"] == long_ago


def test_for_who_has_left_nobody_looks(bedrock, clock, subject):
    old, new = bedrock.add("a").arn, bedrock.add("b").arn
    leaving, gone, staying = Member(subject, old), Member(subject, old), Member(subject, new)
    for member in (leaving, gone):
        member.look()
        clock.sleep(60)
    subject.leave(leaving)
    del gone, member
    gc.collect()
    assert set(staying.look().found) == {new}


def test_a_look_that_fails_is_had_by_nobody(bedrock, subject):
    member = Member(subject, bedrock.add("a").arn)
    bedrock.list_faults.append(UNAVAILABLE)
    with pytest.raises(AsyncInvokeError):
        member.look()
    assert member.look() is not None


def test_while_one_looks_the_others_are_not_held_up(bedrock, clients, subject):
    arn = bedrock.add("a").arn
    looking, go_on = threading.Event(), threading.Event()
    listed = bedrock.list_async_invokes

    def slow(**condition):
        looking.set()
        assert go_on.wait(10)
        return listed(**condition)

    bedrock.list_async_invokes = slow
    one = threading.Thread(target=Member(subject, arn).look)
    one.start()
    assert looking.wait(10)
    other = Member(subject, arn)
    assert other.look() is None
    go_on.set()
    one.join(10)
    assert set(other.look().found) == {arn}
    assert looks(bedrock) == 1


def summaries(bedrock):
    return [one for page in bedrock.list_async_invokes() for one in page]


def test_what_a_look_for_other_reasons_shows_is_looked_for_by_nobody(bedrock, clock, subject):
    ended, going_on = bedrock.add("a", ends=clock.now).arn, bedrock.add("b").arn
    subject.note(summaries(bedrock))
    clock.sleep(5)
    member = Member(subject, ended, going_on)
    assert {arn: one["status"] for arn, one in member.look().found.items()} == {
        ended: "Completed",
        going_on: "InProgress",
    }
    assert (member.last.age_seconds, looks(bedrock)) == (5.0, 1)


def test_how_an_invocation_has_ended_is_known_although_later_looks_do_not_show_it(bedrock, clock, subject):
    ended = bedrock.add("a", ends=clock.now).arn
    subject.note(summaries(bedrock))
    clock.sleep(60)
    subject.note([])
    assert Member(subject, ended).look().found[ended]["status"] == "Completed"
    assert looks(bedrock) == 1


def test_what_such_a_look_does_not_show_is_looked_for(bedrock, subject):
    subject.note(summaries(bedrock))
    later = bedrock.add("a").arn
    assert set(Member(subject, later).look().found) == {later}
    assert looks(bedrock) == 2


def test_nobody_is_shown_such_a_look_twice_nor_an_old_one(bedrock, clock, subject):
    arn = bedrock.add("a", ends=clock.now + 300).arn
    subject.note(summaries(bedrock))
    member = Member(subject, arn)
    for _ in range(2):
        member.look()
    assert looks(bedrock) == 2
    subject.note(summaries(bedrock))
    clock.sleep(15)
    Member(subject, arn).look()
    assert looks(bedrock) == 4


def test_all_who_use_the_same_clients_share_a_list(clients):
    assert shared_list(clients) is shared_list(clients)


def test_many_batches_are_waited_for_with_one_look_an_interval(clients, bedrock, clock):
    bedrock.job_seconds = 600.0
    watchers = []
    for number in range(20):
        uri = MANIFEST.replace("video-001", f"video-{number:03d}")
        job = bedrock.add(f"request-{number}")
        line = {"request_id": job.token, "invocation_arn": job.arn, "outcome": "started"}
        line["submitted_at"] = clock.datetime.isoformat()
        clients.put_requests(request(number))
        clients.objects[uri] = clients.objects[MANIFEST]
        clients.put_lines(uri.replace("requests", "invocations"), line)
        watchers.append([clock.now, Watcher(clients, Watch(manifest_uri=uri, poll_interval=15.0))])
        clock.sleep(0.5)
    begin = clock.now
    while watchers:
        watchers.sort(key=lambda entry: entry[0])
        due, watcher = watchers[0]
        clock.sleep(max(0.0, due - clock.now))
        seconds = watcher.step()
        if seconds is None:
            watchers.pop(0)
        else:
            watchers[0][0] = clock.now + seconds
    # One for each that came, then one an interval.
    assert looks(bedrock) <= 20 + (clock.now - begin) / 15 + 5
