"""A comment in a C source says in ASCII what people wrote."""

import pytest

from hedgerow.compile.c_text import c_comment


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("in m/s²", "in m/s2"),
        ("in °C", "in deg C"),
        ("in \u2103", "in deg C"),
        ("in µm and \u03bcm", "in um and um"),
        ("in kΩ and k\u2126", "in kohm and kohm"),
        ("in N·m", "in N*m"),
        ("zwölf", "zwolf"),
        ("日", "?"),
    ],
)
def test_units_and_letters_are_written_so_that_a_reader_knows_them(text, wanted):
    assert c_comment(text) == [f"/* {wanted} */"]


def test_nothing_ends_the_comment_or_its_line():
    (line,) = c_comment("a */ int main; /* b\\\nc \uff0a\uff0f d")
    assert line == "/* a * / int main; / * b/ c * / d */"
