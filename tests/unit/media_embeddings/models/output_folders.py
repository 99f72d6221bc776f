"""What an invocation has written, held in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from media_embeddings.part_parsers import PartParsers
from media_embeddings.storage import ObjectNotFoundError


class FolderInMemory:
    """Answers like :class:`media_embeddings.output_folder.OutputFolder`, in chunks so small that lines are cut."""

    def __init__(self, files: Mapping[str, bytes], chunk_bytes: int = 100) -> None:
        self.uri = "s3://work/outputs/request/abcdefghijkl"
        self.parsers = PartParsers(0)
        self._files, self._chunk_bytes = files, chunk_bytes

    def _read(self, name: str) -> bytes:
        if name not in self._files:
            raise ObjectNotFoundError(f"{self.uri}/{name}")
        return self._files[name]

    @contextmanager
    def chunks(self, name: str) -> Iterator[Iterator[bytes]]:
        content = self._read(name)
        yield (content[at : at + self._chunk_bytes] for at in range(0, len(content), self._chunk_bytes))

    @contextmanager
    def whole(self, name: str) -> Iterator[bytes]:
        yield self._read(name)
