"""TUF metadata and targets as files over HTTP, with ranges, so that a broken download goes on where it stopped.

Everything here is public and signed; a path is accepted by what it may look like, then checked to lie in its folder.
"""

import re
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse

from hedgerow.fleet.folder import FleetFolder

__all__ = ["download_router"]

_METADATA_NAME = re.compile(r"(?:[0-9]{1,12}\.)?[a-z][a-z0-9_-]{0,63}\.json")
_TARGET_PATH = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_-]{0,127}/){0,8}[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


def download_router(folder: FleetFolder) -> APIRouter:
    """Return the routes ``/tuf/metadata/<file>`` and ``/tuf/targets/<path>``."""
    router = APIRouter(prefix="/tuf", tags=["downloads"])

    # A new version appears under its own name; only these two names change their content (TUF section 6.2).
    @router.head("/metadata/{name}", response_class=FileResponse, include_in_schema=False)
    @router.get("/metadata/{name}", response_class=FileResponse)
    def metadata(name: str) -> FileResponse:
        """Return one file of signed metadata."""
        path = _inside(folder.tuf_metadata, name, _METADATA_NAME)
        return FileResponse(path, media_type="application/json", headers={"Cache-Control": "no-cache"})

    @router.head("/targets/{path:path}", response_class=FileResponse, include_in_schema=False)
    @router.get("/targets/{path:path}", response_class=FileResponse)
    def target(path: str) -> FileResponse:
        """Return one target file, or the ranges of it that were asked for."""
        file = _inside(folder.tuf_targets, path, _TARGET_PATH)
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return FileResponse(file, media_type="application/octet-stream", headers=headers)

    return router


def _inside(folder: Path, relative: str, pattern: re.Pattern[str]) -> Path:
    """Return the file, if *relative* names one inside *folder*; symbolic links may not lead out of it."""
    if pattern.fullmatch(relative):
        path = (folder / relative).resolve()
        if path.is_relative_to(folder.resolve()) and path.is_file():
            return path
    raise HTTPException(404, "expected the path of a published file, found none such")
