"""The vocabulary in which the models say what a request may hold.

Every violation is a ``ValidationException`` in the words that Bedrock uses for a model's input:
"Malformed input request: #/video/startSec: ..., please reformat your input and try again."
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Collection

from .embedding_task import MediaSource
from .errors import BedrockError, validation_error

_S3_URI = re.compile(r"s3://[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]/.+", re.DOTALL)
_ACCOUNT = re.compile(r"[0-9]{12}")


def malformed(path: str, problem: str) -> BedrockError:
    """Return the error for a model input with a problem at a JSON path such as ``#/video/startSec``."""
    return validation_error(f"Malformed input request: {path}: {problem}, please reformat your input and try again.")


class Fields:
    """The members of one JSON object of a model's input, each asked for by name.

    What is never asked for is refused by :meth:`finish`.
    """

    def __init__(self, document: object, path: str = "#") -> None:
        if not isinstance(document, dict):
            raise malformed(path, "expected type: JSONObject")
        self._members = document
        self._read: set[str] = set()
        self.path = path

    def __contains__(self, name: str) -> bool:
        return self._members.get(name) is not None

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}"

    def _get(self, name: str) -> object:
        self._read.add(name)
        return self._members.get(name)

    def _require(self, name: str) -> object:
        value = self._get(name)
        if value is None:
            raise malformed(self.path, f"required key [{name}] not found")
        return value

    def text(self, name: str) -> str:
        """Return a required string that is not empty."""
        value = self._require(name)
        if not isinstance(value, str):
            raise malformed(self._at(name), "expected type: String")
        if not value.strip():
            raise malformed(self._at(name), "expected minLength: 1")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a string, or None where it is absent."""
        return self.text(name) if self._get(name) is not None else None

    def choice(self, name: str, choices: Collection[str], default: str | None = None) -> str:
        """Return one of the choices; without a default the member is required."""
        value = self._get(name) if default is not None else self._require(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or value not in choices:
            raise malformed(self._at(name), f"{value!r} is not a valid enum value: {sorted(choices)}")
        return value

    def number_choice(self, name: str, choices: Collection[int], default: int) -> int:
        """Return one of some whole numbers."""
        value = self._get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value not in choices:
            raise malformed(self._at(name), f"{value!r} is not a valid enum value: {sorted(choices)}")
        return value

    def one_of(self, *names: str) -> str:
        """Return the one of some members that is there: exactly one must be."""
        there = [name for name in names if name in self]
        if len(there) != 1:
            raise malformed(self.path, f"exactly one of {', '.join(names)} must be given")
        return there[0]

    def choices(self, name: str, choices: Collection[str], default: Collection[str]) -> tuple[str, ...]:
        """Return a list of different choices, in the order of ``choices``; not empty where it is present."""
        value = self._get(name)
        if value is None:
            return tuple(default)
        if not isinstance(value, list):
            raise malformed(self._at(name), "expected type: JSONArray")
        if not value:
            raise malformed(self._at(name), "expected minimum item count: 1, found: 0")
        for item in value:
            if not isinstance(item, str) or item not in choices:
                raise malformed(self._at(name), f"{item!r} is not a valid enum value: {sorted(choices)}")
        if len(set(value)) != len(value):
            raise malformed(self._at(name), "array items are not unique")
        return tuple(choice for choice in choices if choice in value)

    def seconds(self, name: str, *, minimum: float = 0.0, maximum: float = math.inf) -> float | None:
        """Return a number of seconds within its range, or None where it is absent."""
        value = self._get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise malformed(self._at(name), "expected type: Number")
        if value < minimum:
            raise malformed(self._at(name), f"{value} is not greater or equal to {minimum:g}")
        if value > maximum:
            raise malformed(self._at(name), f"{value} is not less or equal to {maximum:g}")
        return float(value)

    def whole_number(self, name: str, *, minimum: int, maximum: int) -> int | None:
        """Return a whole number within its range, or None where it is absent."""
        value = self.seconds(name, minimum=minimum, maximum=maximum)
        if value is None:
            return None
        if value != int(value):
            raise malformed(self._at(name), "expected type: Integer")
        return int(value)

    def nested(self, name: str) -> Fields:
        """Return the fields of a required object."""
        return Fields(self._require(name), self._at(name))

    def optional_nested(self, name: str) -> Fields | None:
        """Return the fields of an object, or None where it is absent."""
        return self.nested(name) if self._get(name) is not None else None

    def nested_list(self, name: str) -> list[Fields]:
        """Return the fields of each object in a required list that is not empty."""
        value = self._require(name)
        if not isinstance(value, list):
            raise malformed(self._at(name), "expected type: JSONArray")
        if not value:
            raise malformed(self._at(name), "expected minimum item count: 1, found: 0")
        return [Fields(item, f"{self._at(name)}/{index}") for index, item in enumerate(value)]

    def media_source(self, *, name: str = "") -> MediaSource:
        """Read this object as a media source: exactly one of ``base64String`` and ``s3Location``."""
        inline, location = self._get("base64String"), self.optional_nested("s3Location")
        if (inline is None) == (location is None):
            raise malformed(self.path, "exactly one of base64String and s3Location must be given")
        if location is None:
            return MediaSource(name=name, content=self._decoded(inline))
        uri = location.s3_uri("uri")
        owner = location.optional_text("bucketOwner")
        if owner is not None and not _ACCOUNT.fullmatch(owner):
            raise malformed(f"{location.path}/bucketOwner", "it is not an account id of twelve digits")
        location.finish()
        return MediaSource(name=name, uri=uri, bucket_owner=owner)

    def s3_uri(self, name: str) -> str:
        """Return the URI of an object on S3."""
        uri = self.text(name)
        if not _S3_URI.fullmatch(uri):
            raise malformed(self._at(name), "it is not an S3 URI of an object, s3://bucket/key")
        return uri

    def inline(self, name: str) -> bytes:
        """Return content in base64."""
        return self._decoded(self._require(name), name)

    def _decoded(self, inline: object, name: str = "base64String") -> bytes:
        if not isinstance(inline, str) or not inline:
            raise malformed(self._at(name), "expected type: String with minLength: 1")
        try:
            return base64.b64decode(inline, validate=True)
        except binascii.Error as error:
            raise malformed(self._at(name), f"it is not base64 ({error})") from error

    def finish(self) -> None:
        """Refuse the members that nobody asked for."""
        for name in self._members:
            if name not in self._read:
                raise malformed(self.path, f"extraneous key [{name}] is not permitted")
