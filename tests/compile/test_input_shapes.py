import pytest

from hedgerow.compile.errors import InputShapeError
from hedgerow.compile.input_shapes import parse_shapes


def test_sizes_stand_after_the_last_equals_sign_with_x_between_them():
    assert parse_shapes(["input=1x3x64x64", "a=b:0=7"]) == {"input": (1, 3, 64, 64), "a=b:0": (7,)}
    assert parse_shapes([]) == {}


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (["1x3"], "a name and sizes, such as input=1x3x64x64"),
        (["=1x3"], "a name and sizes, such as input=1x3x64x64"),
        (["x="], "one to eight sizes of 1 or more with x between them"),
        (["x=1,3"], "one to eight sizes of 1 or more with x between them"),
        (["x=1x0"], "one to eight sizes of 1 or more with x between them"),
        (["x=1x-1"], "one to eight sizes of 1 or more with x between them"),
        (["x=1x1x1x1x1x1x1x1x1"], "one to eight sizes of 1 or more with x between them"),
        (["x=1", "x=2"], "its sizes once, found twice"),
    ],
)
def test_what_says_no_sizes_is_one_sentence_with_the_option(pairs, expected):
    with pytest.raises(InputShapeError) as caught:
        parse_shapes(pairs)
    assert expected in str(caught.value)
    assert str(caught.value).endswith("; correct --shape")
