"""Keep the tasks that README.md shows equal to the files of the examples.

python tools/readme.py          # exit code 1 when they differ
python tools/readme.py --write  # copy the files into README.md
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
SHOWN = {"task": ROOT / "examples" / "digits" / "task.py", "own-task": ROOT / "examples" / "visits" / "task.py"}
"""Block of README.md -> the file that it shows."""


def with_files(text: str, files: Mapping[str, str]) -> str:
    """Return the text of README.md with *files*, block -> content, in their blocks."""
    for name, content in files.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if len(block.findall(text)) != 1:
            sys.exit(f"expected one block <!-- {name} --> ... <!-- /{name} --> in README.md; put it back")
        text = block.sub(lambda match, shown=content: f"{match[1]}```python\n{shown}```\n{match[2]}", text)
    return text


def main(arguments: list[str]) -> int:
    """Write or check; return the exit code."""
    if arguments not in ([], ["--write"]):
        sys.exit(f"usage: {Path(__file__).name} [--write]")
    found = README.read_text(encoding="utf-8")
    wanted = with_files(found, {name: path.read_text(encoding="utf-8") for name, path in SHOWN.items()})
    if found == wanted:
        return 0
    if not arguments:
        listed = " or ".join(str(path.relative_to(ROOT)) for path in SHOWN.values())
        print(f"README.md shows another task than {listed}; run: python tools/readme.py --write")
        return 1
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
