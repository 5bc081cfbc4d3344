"""Calls the admin API and turns what can go wrong into one sentence."""

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from hedgerow.fleet.errors import (
    AdminKeyError,
    CommandUnderWayError,
    RefusedRequestError,
    ServiceUnreachableError,
)
from hedgerow.settings import HTTP_ADDRESS

__all__ = ["ApiClient"]

_TIMEOUT_S = 30.0
_FOLLOW_S, _FOLLOW_EVERY_S, _ARRIVAL_S = 60.0, 0.5, 10.0


class ApiClient:
    """The admin API of one fleet service.

    Args:
        url: Such as ``http://127.0.0.1:8080``.
        key: The admin key; it goes into a header and nowhere else.
        transport: How requests travel; None: over the network.
        clock, pause: Rising seconds, and what waits for some.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        if not HTTP_ADDRESS.holds(url):
            raise ServiceUnreachableError(url, f"that is not {HTTP_ADDRESS.expected}")
        self._url, self._clock, self._pause = url.rstrip("/"), clock, pause
        self._client = httpx.Client(
            base_url=self._url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=_TIMEOUT_S,
            transport=transport,
            # A proxy of the environment must not learn the key of a service on this machine.
            trust_env=False,
        )

    def get(self, path: str) -> Any:
        """Return what is at *path*.

        Raises:
            ServiceUnreachableError: Nobody answers, or somebody else.
            AdminKeyError: The key is not accepted.
            RefusedRequestError: The service says no, and why.
        """
        return self._ask("GET", path, None, {})

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask for something; errors as for :meth:`get`.

        It is asked under a key of its own, so that the answer can be had when the service takes long.

        Raises:
            CommandUnderWayError: It is being done, and was not over after a minute.
        """
        return self._change("POST", path, body)

    def delete(self, path: str) -> Any:
        """Ask for the end of what is at *path*; under a key and with errors as for :meth:`post`."""
        return self._change("DELETE", path, None)

    def _change(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        key = secrets.token_hex(16)
        try:
            return self._ask(method, path, body, {"Idempotency-Key": key})
        except ServiceUnreachableError as exc:
            if not exc.was_sent:
                raise
            return self._follow(key, lost=exc)

    def _follow(self, command: str, *, lost: ServiceUnreachableError | None = None) -> Any:
        """Ask for the answer of what is under way, again and again.

        Args:
            command: Its id.
            lost: Why the request itself has no answer. It may not have come as far as a command yet, so for a while
                one that is unknown is waited for.
        """
        begun = self._clock()
        while True:
            waited_s = self._clock() - begun
            try:
                found = self._ask("GET", f"/v1/commands/{command}", None, {})
            except RefusedRequestError as exc:
                if lost is None or exc.status != 404:
                    raise
                if waited_s > _ARRIVAL_S:
                    raise lost from None
                found = {"state": "waiting"}
            except ServiceUnreachableError as exc:
                # An answer that was lost on the way is asked for again, as the first one is.
                if not exc.was_sent or waited_s > _FOLLOW_S:
                    raise
                found = {"state": "waiting"}
            if found["state"] == "done":
                return found["answer"]
            if found["state"] == "failed":
                raise RefusedRequestError(found["problem"]["status"], found["problem"]["detail"])
            if waited_s > _FOLLOW_S:
                raise CommandUnderWayError(command, _FOLLOW_S)
            self._pause(_FOLLOW_EVERY_S)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]) -> Any:
        try:
            answer = self._client.request(method, path, json=body, headers=dict(headers))
            document = answer.json()
        except httpx.HTTPError as exc:
            was_sent = isinstance(exc, httpx.ReadTimeout | httpx.ReadError | httpx.RemoteProtocolError)
            raise ServiceUnreachableError(self._url, str(exc) or type(exc).__name__, was_sent=was_sent) from exc
        except ValueError as exc:
            raise ServiceUnreachableError(self._url, "what answers there does not speak JSON") from exc
        if answer.status_code == 202 and isinstance(document, dict) and document.get("state") == "running":
            return self._follow(str(document["id"]))
        if answer.is_success:
            return document
        if answer.status_code == 401:
            raise AdminKeyError("one that it does not accept")
        detail = document.get("detail") if isinstance(document, dict) else None
        raise RefusedRequestError(answer.status_code, str(detail or f"the service answered {answer.status_code}"))
