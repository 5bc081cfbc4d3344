"""Calls the admin API and turns what can go wrong into one sentence."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from hedgerow.fleet.errors import AdminKeyError, RefusedRequestError, ServiceUnreachableError

__all__ = ["ApiClient"]

_TIMEOUT_S = 30.0


class ApiClient:
    """The admin API of one fleet service.

    Args:
        url: Such as ``http://127.0.0.1:8080``.
        key: The admin key; it goes into a header and nowhere else.
        transport: How requests travel; None: over the network.
    """

    def __init__(self, url: str, key: str, *, transport: httpx.BaseTransport | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ServiceUnreachableError(url, "that is no address like http://127.0.0.1:8080")
        self._url = url.rstrip("/")
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
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask for something; errors as for :meth:`get`."""
        return self._ask("POST", path, body)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        try:
            answer = self._client.request(method, path, json=body)
            document = answer.json()
        except httpx.HTTPError as exc:
            raise ServiceUnreachableError(self._url, str(exc) or type(exc).__name__) from exc
        except ValueError as exc:
            raise ServiceUnreachableError(self._url, "what answers there does not speak JSON") from exc
        if answer.is_success:
            return document
        if answer.status_code == 401:
            raise AdminKeyError("one that it does not accept")
        detail = document.get("detail") if isinstance(document, dict) else None
        raise RefusedRequestError(answer.status_code, str(detail or f"the service answered {answer.status_code}"))
