"""Rebuild build/view/hedgerow: links that show static tools the import layout.

An editable install of mapped packages is an import hook, and type checkers do not run hooks. The view gives them
the same tree as plain files.
"""

import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VIEW = ROOT / "build" / "view" / "hedgerow"
FOLDERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hedgerow"]["folders"]

shutil.rmtree(VIEW, ignore_errors=True)
VIEW.mkdir(parents=True)
for source in [*(ROOT / "src" / "hedgerow").iterdir(), *(ROOT / folder for folder in FOLDERS)]:
    if source.name != "__pycache__":
        (VIEW / source.name).symlink_to(source, target_is_directory=source.is_dir())
