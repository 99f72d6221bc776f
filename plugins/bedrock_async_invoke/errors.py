"""Tells what an error of Bedrock or S3 means for the request that met it."""

from __future__ import annotations

from enum import StrEnum

from botocore.exceptions import ClientError, ParamValidationError


class Meaning(StrEnum):
    """What an error means for the call that met it."""

    THROTTLED = "throttled"
    """There is no room now; the request is as good as it was."""
    REFUSED = "refused"
    """The request itself is refused."""
    UNAVAILABLE = "unavailable"
    """No answer can be relied on: the call may or may not have had its effect."""


# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_StartAsyncInvoke.html lists the errors.
_THROTTLED = frozenset({"ThrottlingException", "ServiceQuotaExceededException", "TooManyRequestsException"})
_REFUSED = frozenset({"ValidationException", "AccessDeniedException", "ConflictException", "ResourceNotFoundException"})


class AsyncInvokeError(Exception):
    """A call failed; ``meaning`` says what that means, ``code`` is AWS's own error code or the class of the failure."""

    def __init__(self, meaning: Meaning, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.meaning, self.code, self.message = meaning, code, message


def explain(error: Exception) -> AsyncInvokeError:
    """Return what an error of botocore means.

    An error that is neither throttling nor a refusal is one of which nothing is known, so it counts as unavailable: a
    request must not be failed, nor started a second time, on account of an answer that was not understood.
    """
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", "Unknown"))
        message = str(error.response.get("Error", {}).get("Message", error))
        meaning = (
            Meaning.THROTTLED if code in _THROTTLED else Meaning.REFUSED if code in _REFUSED else Meaning.UNAVAILABLE
        )
        return AsyncInvokeError(meaning, code, message)
    # Parameters that botocore itself refuses never reach Bedrock.
    meaning = Meaning.REFUSED if isinstance(error, ParamValidationError) else Meaning.UNAVAILABLE
    return AsyncInvokeError(meaning, type(error).__name__, str(error))
