"""Report functions, methods, classes and statements of the product that nothing uses.

Vulture finds them by name over product, tests, examples and tools together, because fakes and what users call are used
there. Variables and attributes are left out: most are fields of records and facts of errors, which are read by name.
Imports are ruff's, which reads annotations too.
"""

import sys
import tomllib
from pathlib import Path

from vulture import Vulture

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hedgerow"]["folders"]
USERS = ("tests", "examples", "tools", "benchmarks")
PRODUCT = tuple(folder for folder in ("src", *FOLDERS) if folder not in USERS)
MINIMUM_CONFIDENCE = 60
LEFT_OUT = {"variable", "attribute", "import"}

DECORATORS = ["@click.*", "@*.command", "@app.*", "@router.*", "@pytest.*"]
"""What registers a function with a library that calls it."""

CALLED_BY_LIBRARIES = [
    "__getattr__",  # Python, for lazy exports
    "__init_subclass__",  # Python, for a class that is made
    "create_message",  # Flower's grid
    "format_commands",  # click
    "forward",  # torch
    "get_next",  # ONNX Runtime's calibration reader
    "list_commands",  # click
    "set_run",  # Flower's grid
    "setup_context",  # torch
]

vulture = Vulture(ignore_names=CALLED_BY_LIBRARIES, ignore_decorators=DECORATORS)
vulture.scavenge([str(ROOT / name) for name in (*PRODUCT, *USERS) if (ROOT / name).exists()])
product = [ROOT / name for name in PRODUCT]
found = [
    item
    for item in vulture.get_unused_code(min_confidence=MINIMUM_CONFIDENCE)
    if item.typ not in LEFT_OUT and any(Path(item.filename).is_relative_to(folder) for folder in product)
]
for item in found:
    print(f"{Path(item.filename).relative_to(ROOT)}:{item.first_lineno}: unused {item.typ} {item.name!r}")
sys.exit(1 if found else 0)
