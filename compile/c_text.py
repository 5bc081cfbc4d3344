"""Text of C sources: names, comments and strings that nothing in a task's words can break. Pure."""

import re
import textwrap
import unicodedata

from hedgerow.compile.errors import CArrayError

__all__ = ["c_comment", "c_name", "c_quoted"]

_SIGNS = str.maketrans({"°": "deg ", "\u03bc": "u", "\u03a9": "ohm", "\u00b7": "*", "\u00d7": "x"})
"""What units are written with, as an engineer types it; Unicode's own forms give powers and letters."""


def c_name(name: str) -> str:
    """Return *name* as a C identifier in lower case, such as ``keyword_spotting_model``.

    Raises:
        CArrayError: It holds no letter or digit.
    """
    words = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if not words:
        raise CArrayError("a name with a letter or digit", repr(name))
    # An identifier must not begin with a digit.
    return f"{words}_model" if words[0].isalpha() else f"m{words}_model"


def c_comment(text: str) -> list[str]:
    """Return *text* as a C comment in ASCII; nothing in it ends the comment or a line."""
    letters = (sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))
    plain = "".join(letters).translate(_SIGNS).encode("ascii", "replace").decode("ascii")
    plain = " ".join(plain.replace("*/", "* /").replace("/*", "/ *").replace("\\", "/").split())
    rows = textwrap.wrap(plain, 110, break_long_words=False, break_on_hyphens=False)
    return [
        f"{'/* ' if not place else ' * '}{row}{' */' if place == len(rows) - 1 else ''}"
        for place, row in enumerate(rows)
    ]


def c_quoted(text: str) -> str:
    """Return *text* as a C string literal in UTF-8; whatever is no letter, digit or space is an octal escape."""
    signs = (
        chr(byte) if (chr(byte).isalnum() and byte < 128) or byte == 32 else f"\\{byte:03o}" for byte in text.encode()
    )
    return f'"{"".join(signs)}"'
