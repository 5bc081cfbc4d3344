"""Keep the task that README.md shows equal to examples/digits/task.py.

python tools/readme.py          # exit code 1 when they differ
python tools/readme.py --write  # copy the file into README.md
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
TASK = ROOT / "examples" / "digits" / "task.py"
BLOCK = re.compile(r"(<!-- task -->\n).*?(<!-- /task -->)", re.DOTALL)


def with_task(text: str, task: str) -> str:
    """Return the text of README.md with *task* in its block."""
    if len(BLOCK.findall(text)) != 1:
        sys.exit("expected one block <!-- task --> ... <!-- /task --> in README.md; put it back")
    return BLOCK.sub(lambda match: f"{match[1]}```python\n{task}```\n{match[2]}", text)


def main(arguments: list[str]) -> int:
    """Write or check; return the exit code."""
    if arguments not in ([], ["--write"]):
        sys.exit(f"usage: {Path(__file__).name} [--write]")
    found = README.read_text(encoding="utf-8")
    wanted = with_task(found, TASK.read_text(encoding="utf-8"))
    if found == wanted:
        return 0
    if not arguments:
        print(f"README.md shows another task than {TASK.relative_to(ROOT)}; run: python tools/readme.py --write")
        return 1
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
