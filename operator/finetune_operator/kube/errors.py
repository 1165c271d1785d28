"""What the API server refuses, by type: callers say which refusals they expect."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """The API server refused; `code` is HTTP's, `reason` its one word, the message its own."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason, self.message = code, reason, message


class NotFound(ApiError): ...


class Conflict(ApiError):
    """409: the name is taken, or a precondition (UID, resourceVersion) does not hold."""


class Unauthorized(ApiError):
    """401: our own credentials are not accepted just now, as while a token is rotated; says nothing of the request."""


class Forbidden(ApiError):
    """403: no right, a quota, or an admission policy."""


class Invalid(ApiError):
    """400 or 422: the object itself is refused; the same request fails again."""


class Throttled(ApiError):
    """429; `retry_after` in seconds."""

    def __init__(self, code: int, reason: str, message: str, retry_after: float) -> None:
        super().__init__(code, reason, message)
        self.retry_after = retry_after


class Unavailable(ApiError):
    """No answer, a broken one, or 5xx; a write may or may not have happened."""


class Fenced(Exception):
    """A write was refused on our side: the lease may be another's by the time it arrives."""


def to_error(code: int, answer: dict[str, Any], retry_after: str | None) -> ApiError:
    """The error that says what an answer of 3xx to 5xx means."""
    reason, message = str(answer.get("reason") or "Unknown"), str(answer.get("message") or "")[:2000]
    if code == 404:
        return NotFound(code, reason, message)
    if code == 409:
        return Conflict(code, reason, message)
    if code == 401:
        return Unauthorized(code, reason, message)
    if code == 403:
        return Forbidden(code, reason, message)
    if code in (400, 422):
        return Invalid(code, reason, message)
    if code == 429:
        wait = float(retry_after) if retry_after and retry_after.isdigit() else 1.0
        return Throttled(code, reason, message, wait)
    if code >= 500:
        return Unavailable(code, reason, message)
    return ApiError(code, reason, message)
