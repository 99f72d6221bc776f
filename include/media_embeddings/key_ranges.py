"""Lists a key space by several calls at once: splits it into ranges of keys while it is being listed.

One listing is a chain of pages, each asked for by the page before it. A second chain can begin behind any key, so a thread
that has nothing to do picks a key in the middle of what a chain has still before it, and asks what comes behind it. What it
finds becomes a chain of its own, and the earlier one ends where it meets the first key of the new one.

That meeting is what makes the parts a whole: a chain that ends right before the key with which the next one begins has left
out nothing and listed nothing twice, in whatever order the server lists. A chain that misses that key, because the server
does not order keys by their UTF-8 bytes as S3 does or because the key was deleted meanwhile, makes the whole be listed again by
one chain: never a key is lost, only time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from media_embeddings.s3_pages import Page

logger = logging.getLogger(__name__)

_PAGES_BEFORE_SPLITTING = 3
# A look that finds nothing costs a call: at most these, and one for every so many pages.
_FREE_LOOKS = 4
_PAGES_A_LOOK = 4


class Fetch(Protocol):
    """Returns the page behind a key, or of a token, or the first one."""

    def __call__(self, *, after: str | None = None, token: str | None = None) -> Page:
        """Return a page."""


Write = Callable[[int, pa.Table], None]
"""Takes objects of a range, named by a number; those of one range come in their order, never two calls at once."""


class _SeamError(Exception):
    """A range did not end where the next one begins."""


@dataclass(eq=False, slots=True)
class _Range:
    """A part of the key space: from where its first page begins to right before ``until``."""

    number: int
    until: str | None = None
    """The key with which the next range begins; None: to the end."""
    nothing_from: str | None = None
    """No key of this range was found from here on. It only tells where not to look."""
    differs_at: int | None = None
    """Keys from the cursor on differ at this position at the latest."""
    token: str | None = None
    first: str = ""
    """First and last key of the page that was listed last."""
    cursor: str = ""
    is_done: bool = False
    is_busy: bool = True
    is_looked_into: bool = False


def list_ranges(fetch: Fetch, write: Write, prefix: str, workers: int) -> list[int]:
    """List everything below a prefix, and return the numbers of the ranges in the order of their keys.

    A key space of up to three pages takes as many calls as it has pages.

    :param workers: the most calls at once.
    """
    try:
        return _Listing(fetch, write, prefix).run(workers)
    except _SeamError as error:
        logger.warning("%s: it is listed again, by one call after another", error)
        return [-number - 1 for number in _Listing(fetch, lambda n, rows: write(-n - 1, rows), prefix).run(1)]


@dataclass
class _Listing:
    fetch: Fetch
    write: Write
    prefix: str
    _ranges: list[_Range] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _pages: int = 0
    _vain_looks: int = 0
    _looking: int = 0
    _numbers: int = 0
    _error: BaseException | None = None

    def run(self, workers: int) -> list[int]:
        whole = _Range(0)
        self._ranges.append(whole)
        self._take(whole, self.fetch())
        with ThreadPoolExecutor(workers) as pool:
            # A library of one page needs no thread.
            for _ in range(0 if whole.is_done else workers):
                pool.submit(self._work)
        if self._error is not None:
            raise self._error
        return [one.number for one in self._ranges]

    def _work(self) -> None:
        try:
            while (job := self._next_job()) is not None:
                job()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits for this one
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _next_job(self) -> Callable[[], None] | None:
        """Return what is to be done next; waits while everything is being done, None when everything is."""
        with self._changed:
            while self._error is None and not all(one.is_done for one in self._ranges):
                waiting = next((one for one in self._ranges if not one.is_done and not one.is_busy), None)
                if waiting is not None:
                    waiting.is_busy = True
                    return lambda: self._take(waiting, self.fetch(token=waiting.token))
                if (look := self._next_look()) is not None:
                    split, key = look
                    split.is_looked_into = True
                    self._looking += 1
                    return lambda: self._look(split, key)
                self._changed.wait()
        return None

    def _next_look(self) -> tuple[_Range, str] | None:
        """Return a range to be split and the key behind which to look; the widest of those that can be."""
        allowed = _FREE_LOOKS + self._pages // _PAGES_A_LOOK
        if self._pages < _PAGES_BEFORE_SPLITTING or self._vain_looks + self._looking >= allowed:
            return None
        found = [
            (split.depth, number, one, split.key)
            for number, one in enumerate(self._ranges)
            if not one.is_done and not one.is_looked_into and (split := self._split_of(one)) is not None
        ]
        if not found:
            return None
        _, _, split_range, key = min(found, key=lambda each: each[:2])
        return split_range, key

    def _split_of(self, one: _Range) -> Split | None:
        bounds = [bound for bound in (one.until, one.nothing_from) if bound is not None]
        return split_key(one.first, one.cursor, min(bounds, default=None), one.differs_at, len(self.prefix))

    def _look(self, split: _Range, key: str) -> None:
        page = self.fetch(after=key)
        with self._changed:
            self._looking -= 1
            split.is_looked_into = False
            self._pages += 1
            found = page.objects["key"][0].as_py() if page.objects.num_rows else None
            made = self._cut_off(split, key, found, ended=page.next_token is None)
            self._vain_looks += made is None
            self._changed.notify_all()
        if made is not None:
            self._take(made, page)

    def _cut_off(self, split: _Range, key: str, found: str | None, *, ended: bool) -> _Range | None:
        """Return the range that begins with what was found behind a key, cut off from another; None if it can't be."""
        if split.is_done or split.cursor >= key:
            return None
        if (found is None and ended) or (found is not None and split.until is not None and found >= split.until):
            split.nothing_from = key
            return None
        if found is None or found <= key:
            return None
        self._numbers += 1
        made = _Range(self._numbers, split.until, split.nothing_from, differs_at=_common(found, split.cursor))
        self._ranges.insert(self._ranges.index(split) + 1, made)
        split.until, split.nothing_from = found, None
        return made

    def _take(self, one: _Range, page: Page) -> None:
        """Write what of a page belongs to its range."""
        with self._changed:
            objects = self._within(one, page)
        self.write(one.number, objects)
        with self._changed:
            self._pages += 1
            one.is_busy = False
            self._changed.notify_all()

    def _within(self, one: _Range, page: Page) -> pa.Table:
        objects, one.token = page.objects, page.next_token
        end = -1
        if one.until is not None and objects.num_rows:
            end = pc.index(pc.greater_equal(objects["key"], one.until), pa.scalar(True)).as_py()
        if end >= 0:
            self._check_seam(one, objects["key"][end].as_py())
            one.is_done = True
            return objects.slice(0, end)
        if page.next_token is None:
            self._check_seam(one, None)
            one.is_done = True
        if objects.num_rows:
            one.first, one.cursor = objects["key"][0].as_py(), objects["key"][-1].as_py()
        return objects

    @staticmethod
    def _check_seam(one: _Range, met: str | None) -> None:
        if met != one.until:
            raise _SeamError(f"a listing by ranges of keys expected {one.until!r} and met {met!r}")


@dataclass(frozen=True, slots=True)
class Split:
    """Where to look for keys, and at which position it differs from those that were listed: the earlier, the wider."""

    key: str
    depth: int


_PAGES_WORTH_A_SPLIT = 4
_ALPHABETS = tuple(
    (ord(first), ord(last))
    for first, last in ("09", "AZ", "az", "\u0400\u04ff", "\u3040\u30ff", "\u4e00\u9fff", "\uac00\ud7a3")
)
_SURROGATES = range(0xD800, 0xE000)
_UNFIT = frozenset({0xFFFE, 0xFFFF})


def split_key(first: str, last: str, bound: str | None, differs_at: int | None, prefix_length: int) -> Split | None:
    """Return a key in the middle of what lies behind a page; None where no key there is worth a call.

    Nothing is known of what lies there but its bound, so the middle is that of the characters at the first position where
    keys may differ. A range that is open at that position is first asked whether its keys differ there at all.

    :param first: the first key of the page, ``last`` its last one.
    :param bound: the key before which the range ends, or from which on nothing was found; None if nothing is known of it.
    :param differs_at: a position at which the keys are known to differ; None if none is known.
    :param prefix_length: the characters that all keys have in common.
    """
    depth = prefix_length if bound is None else _common(last, bound)
    same_in_page = _common(first, last)
    if depth >= min(same_in_page + 1, len(last)):
        return None
    low = ord(last[depth])
    high = None if bound is None else ord(bound[depth]) if depth < len(bound) else low
    if high is not None and high - low <= 1:
        # Whatever is left begins as the page does: the position behind this one is open.
        depth, high = depth + 1, None
    if depth < same_in_page and high is None and differs_at != depth:
        # Halfway to where they do differ, so that a long common beginning takes few looks.
        depth = (depth + min(same_in_page, differs_at or same_in_page)) // 2
        return _split_at(last, depth, ord(last[depth]) + 1)
    if depth >= min(same_in_page + 1, len(last)):
        return None
    low = ord(last[depth])
    high = _likely_end(low, high)
    # A page that reaches across several characters would be the whole of what is split off.
    step = ord(last[depth]) - ord(first[depth]) if depth == same_in_page < len(first) else 0
    return (
        None if high - low <= _PAGES_WORTH_A_SPLIT * step else _split_at(last, depth, max(low + 1, (low + high) // 2))
    )


def _likely_end(low: int, high: int | None) -> int:
    """Return the character before which those end that are likely to stand where ``low`` does."""
    end = next((top for bottom, top in _ALPHABETS if bottom <= low <= top), low) + 1
    return end if high is None else min(high, end)


def _split_at(last: str, depth: int, code: int) -> Split | None:
    if code in _SURROGATES:
        code = _SURROGATES.stop
    if code > 0x10FFFF or code < 0x20 or code in _UNFIT:
        return None
    return Split(last[:depth] + chr(code), depth)


def _common(one: str, other: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
