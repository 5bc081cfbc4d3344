"""Start the talkers as child processes."""

import os
from pathlib import Path

from hedgerow.children.module_child import ModuleChild
from hedgerow.children.output import ChildOutput

ROOT = Path(__file__).resolve().parents[3]
LIMIT_BYTES = 2**20


def talker(what: str, *, output: ChildOutput | None = None, limit_bytes: int = LIMIT_BYTES, **more) -> ModuleChild:
    """Return a child that does *what* of talkers.py."""
    search_path = os.pathsep.join((str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])))
    environment = {"PYTHONPATH": search_path, "TALKER": what, **more.pop("environment", {})}
    return ModuleChild(
        "tests.root.children.talkers",
        limit_bytes=limit_bytes,
        name=what,
        output=output,
        environment=environment,
        **more,
    )
