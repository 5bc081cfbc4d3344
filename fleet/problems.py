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
    InvalidTransitionError,
    NoDevicesError,
    PlanError,
    RolloutConflictError,
    ServiceStoppedError,
    TrainingRoundError,
    UnknownDeviceError,
    UnknownReleaseError,
    UnknownRolloutError,
)

__all__ = ["add_problem_handlers", "problem"]

_log = logging.getLogger(__name__)
_STATUS: tuple[tuple[type[HedgerowError], int], ...] = (
    (AdminKeyError, 401),
    (UnknownDeviceError, 404),
    (UnknownReleaseError, 404),
    (UnknownRolloutError, 404),
    (UnknownNameError, 404),
    (RolloutConflictError, 409),
    (InvalidTransitionError, 409),
    (NoDevicesError, 409),
    (PlanError, 422),
    (ServiceStoppedError, 503),
)
_TITLES = {401: "Not authorized", 404: "Not found", 409: "Conflict", 413: "Too large", 422: "Not acceptable"}


def problem(status: int, detail: str, kind: str, headers: dict[str, str] | None = None, **facts: Any) -> Response:
    """Return a problem document.

    Args:
        status: The HTTP status.
        detail: One sentence.
        kind: What it is, for programs; the last part of its ``type``.
        headers: Further headers.
        facts: Further members.
    """
    document = {
        "type": f"urn:hedgerow:problem:{kind}",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        **facts,
    }
    extra = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse(document, status, {**extra, **(headers or {})}, media_type="application/problem+json")


def add_problem_handlers(app: FastAPI) -> None:
    """Let every error of *app* be a problem document."""

    @app.exception_handler(HedgerowError)
    def of_hedgerow(_request: Request, exc: Exception) -> Response:
        kind = type(exc).__name__.removesuffix("Error")
        if isinstance(exc, TrainingRoundError):
            return problem(exc.status, str(exc), kind)
        status = next((status for error, status in _STATUS if isinstance(exc, error)), 500)
        if status == 500:
            _log.error("a request failed: %s", exc)
        return problem(status, str(exc), kind)

    @app.exception_handler(RequestValidationError)
    def of_validation(_request: Request, exc: Exception) -> Response:
        errors = exc.errors() if isinstance(exc, RequestValidationError) else []
        found = [{"where": ".".join(str(part) for part in error["loc"]), "message": error["msg"]} for error in errors]
        listed = "; ".join(f"{error['where']}: {error['message']}" for error in found)
        return problem(422, f"expected an acceptable request, found {listed}; correct it", "Validation", errors=found)

    @app.exception_handler(HTTPException)
    def of_http(_request: Request, exc: Exception) -> Response:
        if not isinstance(exc, HTTPException):
            return problem(500, "something went wrong; the service's log says what", "Internal")
        return problem(exc.status_code, str(exc.detail), "Http", dict(exc.headers or {}))

    @app.exception_handler(Exception)
    def of_bug(_request: Request, _exc: Exception) -> Response:
        # The server logs the exception; its text may hold what must not leave the machine.
        return problem(500, "something went wrong; the service's log says what", "Internal")
