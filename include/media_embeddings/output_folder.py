"""What one invocation has written, as a model reads it: the files below its own prefix, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from threading import Lock

from media_embeddings.in_order import Share
from media_embeddings.part_parsers import PartParsers
from media_embeddings.storage import Storage, join_uri

_CHUNK_BYTES = 1024 * 1024


class OutputFolder:
    """The folder of one invocation. A shared prefix is never searched: files are named.

    :param share: what this output has of the bytes that may be under way at once.
    :param parsers: what parses the parts of its files.
    :param alone: held by who needs several times a file's size, so that only one does at a time.
    """

    def __init__(self, storage: Storage, uri: str, share: Share, parsers: PartParsers, alone: Lock) -> None:
        self._storage, self.uri, self._share, self.parsers, self._alone = storage, uri, share, parsers, alone
        self._taken = 0

    @contextmanager
    def chunks(self, name: str) -> Generator[Iterator[bytes]]:
        """Give the content of a file as it arrives.

        :raises ObjectNotFoundError: where there is none.
        """
        with closing(self._storage.open(join_uri(self.uri, name))) as content:
            self._take(content.size_bytes)
            yield content.chunks(_CHUNK_BYTES)

    @contextmanager
    def whole(self, name: str) -> Generator[bytes]:
        """Give the whole content of a file to who parses it at once, one at a time in this process.

        :raises ObjectNotFoundError: where there is none.
        """
        with self._alone:
            yield self._storage.read(join_uri(self.uri, name))

    def _take(self, size_bytes: int) -> None:
        self._taken += size_bytes
        self._share.take(self._taken)
