"""Errors as ``application/problem+json`` (RFC 9457)."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from hedgerow.errors import HedgerowError, UnknownNameError
from hedgerow.fleet.errors import (
    AdminKeyError,
    CommandConflictError,
    CommandNotBegunError,
    CommandUnderWayError,
    InvalidTransitionError,
    NoDevicesError,
    PlanError,
    RolloutConflictError,
    ServiceStoppedError,
    TrainingRoundError,
    UnknownCommandError,
    UnknownDeviceError,
    UnknownReleaseError,
    UnknownRolloutError,
)

__all__ = ["add_problem_handlers", "problem", "problem_of"]

_log = logging.getLogger(__name__)
_STATUS: tuple[tuple[type[HedgerowError], int], ...] = (
    (AdminKeyError, 401),
    (UnknownCommandError, 404),
    (UnknownDeviceError, 404),
    (UnknownReleaseError, 404),
    (UnknownRolloutError, 404),
    (UnknownNameError, 404),
    (RolloutConflictError, 409),
    (InvalidTransitionError, 409),
    (NoDevicesError, 409),
    (PlanError, 422),
    (CommandConflictError, 422),
    (CommandNotBegunError, 503),
    (ServiceStoppedError, 503),
)
_BUG = "something went wrong; the service's log says what"
_TITLES = {
    401: "Not authorized",
    404: "Not found",
    408: "Too slow",
    409: "Conflict",
    413: "Too large",
    422: "Not acceptable",
    503: "Busy",
}


def problem(status: int, detail: str, kind: str, headers: dict[str, str] | None = None, **facts: Any) -> Response:
    """Return a problem document.

    Args:
        status: The HTTP status.
        detail: One sentence.
        kind: What it is, for programs; the last part of its ``type``.
        headers: Further headers.
        facts: Further members.
    """
    document = _document(status, detail, kind, **facts)
    extra = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse(document, status, {**extra, **(headers or {})}, media_type="application/problem+json")


def problem_of(error: HedgerowError | None) -> dict[str, Any]:
    """Return what a request that ended in *error* would have been answered; None: in a bug of ours."""
    if error is None:
        return _document(500, _BUG, "Internal")
    status = error.status if isinstance(error, TrainingRoundError) else 500
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), status)
    return _document(status, str(error), type(error).__name__.removesuffix("Error"))


def _document(status: int, detail: str, kind: str, **facts: Any) -> dict[str, Any]:
    return {
        "type": f"urn:hedgerow:problem:{kind}",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        **facts,
    }


def add_problem_handlers(app: FastAPI) -> None:
    """Let every error of *app* be a problem document."""

    @app.exception_handler(HedgerowError)
    def of_hedgerow(_request: Request, exc: Exception) -> Response:
        if isinstance(exc, CommandUnderWayError):
            # No failure: it is being done, and here is where to ask for the answer.
            where = f"/v1/commands/{exc.command}"
            record = {"id": exc.command, "state": "running", "detail": str(exc)}
            return JSONResponse(record, 202, {"Location": where, "Retry-After": "1"})
        document = problem_of(exc if isinstance(exc, HedgerowError) else None)
        if document["status"] == 500:
            _log.error("a request failed: %s", exc)
        retry = {"Retry-After": str(exc.retry_after_s)} if isinstance(exc, CommandNotBegunError) else {}
        kind = document["type"].rpartition(":")[2]
        return problem(document["status"], document["detail"], kind, retry)

    @app.exception_handler(RequestValidationError)
    def of_validation(_request: Request, exc: Exception) -> Response:
        errors = exc.errors() if isinstance(exc, RequestValidationError) else []
        found = [{"where": ".".join(str(part) for part in error["loc"]), "message": error["msg"]} for error in errors]
        listed = "; ".join(f"{error['where']}: {error['message']}" for error in found)
        return problem(422, f"expected an acceptable request, found {listed}; correct it", "Validation", errors=found)

    @app.exception_handler(HTTPException)
    def of_http(_request: Request, exc: Exception) -> Response:
        if not isinstance(exc, HTTPException):
            return problem(500, _BUG, "Internal")
        return problem(exc.status_code, str(exc.detail), "Http", dict(exc.headers or {}))

    @app.exception_handler(Exception)
    def of_bug(_request: Request, _exc: Exception) -> Response:
        # The server logs the exception; its text may hold what must not leave the machine.
        return problem(500, _BUG, "Internal")
