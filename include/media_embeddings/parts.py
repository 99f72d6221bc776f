"""The requests that one object takes: one, or for a long text one for each of its parts."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, overload

from media_embeddings.identity import part_request_id
from media_embeddings.media import TextSegment


@dataclass(frozen=True, slots=True)
class Part:
    """What one request embeds of an object; places and times are None where it is no text, or has none."""

    request_id: str
    start_char: int | None = None
    """As in :class:`~media_embeddings.media.TextSegment`, and so is the rest."""
    end_char: int | None = None
    start_sec: float | None = None
    end_sec: float | None = None
    finished_output_uri: str | None = None
    """The folder of an output of it that is there already: then nothing is started."""


class CutText(Sequence[Part]):
    """The parts of a text that has several. Takes 8 bytes a part, or 24 with times: a plan may hold millions.

    :param whole_id: the request id of the attempt at the whole object, from which those of the parts are made.
    :param finished: by place, the request id and the output's folder of what is there already.
    """

    __slots__ = ("_finished", "_places", "_times", "_whole_id")

    def __init__(
        self, whole_id: str, places: array[int], times: array[float], finished: Mapping[int, tuple[str, str]]
    ) -> None:
        self._whole_id, self._places, self._times, self._finished = whole_id, places, times, finished

    @classmethod
    def of(cls, whole_id: str, segments: Iterable[TextSegment]) -> Self:
        """Return the parts that a text is cut into."""
        places, times = array("i"), array("d")
        for one in segments:
            places.extend((one.start_char, one.end_char))
            if one.start_sec is not None and one.end_sec is not None:
                times.extend((one.start_sec, one.end_sec))
        return cls(whole_id, places, times, {})

    @property
    def characters(self) -> int:
        """Return how many characters are sent in all parts together."""
        return sum(self._places[1::2]) - sum(self._places[::2])

    def named(self, whole_id: str) -> Iterable[str]:
        """Yield the request ids that the parts have in an attempt."""
        for place in range(len(self)):
            yield part_request_id(whole_id, self._places[2 * place], self._places[2 * place + 1])

    def with_finished(self, finished: Mapping[int, tuple[str, str]]) -> CutText:
        """Return the parts with what is there already."""
        return CutText(self._whole_id, self._places, self._times, finished)

    def __len__(self) -> int:
        return len(self._places) // 2

    @overload
    def __getitem__(self, place: int) -> Part: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Part]: ...

    def __getitem__(self, place: int | slice) -> Part | Sequence[Part]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        start, end = self._places[2 * place], self._places[2 * place + 1]
        first, last = self._times[2 * place : 2 * place + 2] or (None, None)
        name, output_uri = self._finished.get(place) or (part_request_id(self._whole_id, start, end), None)
        return Part(name, start, end, first, last, output_uri)
