"""What a train graph can be asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.compile.errors import StepOptionError
from hedgerow.compile.train_graph.options import BATCH_NORMS, OPTIMIZERS, TARGETS, StepOptions, parse_step_options
from hedgerow.errors import UnknownNameError


def test_patterns_choose_parameters_in_their_order():
    names = ("body.weight", "head.weight", "body.lora_up", "head.bias")
    assert StepOptions().trained(names) == names
    assert StepOptions(trainable=("head.*",)).trained(names) == ("head.weight", "head.bias")
    assert StepOptions(trainable=("*.lora_*", "head.bias")).trained(names) == ("body.lora_up", "head.bias")


def test_what_does_not_exist_is_named():
    with pytest.raises(UnknownNameError, match="tail"):
        StepOptions(trainable=("tail.*",)).trained(("head.weight",))
    for wrong in ({"optimizer": "adm"}, {"batch_norm": "running"}, {"targets": "words"}):
        with pytest.raises(UnknownNameError):
            StepOptions(**wrong)
    with pytest.raises(StepOptionError, match="momentum"):
        StepOptions(optimizer="momentum", momentum=1.0)


names = st.text(st.characters(exclude_characters=",=", exclude_categories=("C", "Z")), min_size=1, max_size=12)
shares = st.floats(0, 1, exclude_max=True)


@given(
    st.builds(
        StepOptions,
        optimizer=st.sampled_from(OPTIMIZERS),
        momentum=shares,
        betas=st.tuples(shares, shares),
        epsilon=st.floats(0, 1, exclude_min=True, exclude_max=True),
        proximal=st.booleans(),
        control_variates=st.booleans(),
        trainable=st.one_of(st.none(), st.lists(names, min_size=1, max_size=3).map(tuple)),
        batch_norm=st.sampled_from(BATCH_NORMS),
        dropout=st.booleans(),
        targets=st.sampled_from(TARGETS),
    )
)
def test_options_are_read_as_they_were_written(options):
    assert parse_step_options(options.pairs()) == options


def test_plain_options_are_written_as_nothing():
    assert StepOptions().pairs() == ()
    assert parse_step_options(()) == StepOptions()


def test_pairs_say_what_differs_from_plain_sgd():
    pairs = ("optimizer=adam", "betas=0.8, 0.99", "trainable=head.*,*.lora_*", "dropout=yes", "batch_norm=train")
    assert parse_step_options(pairs) == StepOptions(
        optimizer="adam", betas=(0.8, 0.99), trainable=("head.*", "*.lora_*"), dropout=True, batch_norm="train"
    )


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (("optimizer",), "the train graph's options: expected NAME=VALUE, such as optimizer=adam, found 'optimizer'"),
        (("optimizer=",), "the train graph's options: expected NAME=VALUE, such as optimizer=adam, found 'optimizer='"),
        (("dropout=1",), "the train graph's dropout: expected yes or no, found '1'"),
        (("momentum=fast",), "the train graph's momentum: expected numbers, found 'fast'"),
        (("momentum=0.1,0.2",), "the train graph's momentum: expected one number, found '0.1,0.2'"),
        (("momentum=1",), "the train graph's momentum: expected a number from 0 to below 1, found 1.0"),
        (("momentum=nan",), "the train graph's momentum: expected a number from 0 to below 1, found nan"),
        (("betas=0.9",), "the train graph's betas: expected two numbers from 0 to below 1, found (0.9,)"),
        (("epsilon=0",), "the train graph's epsilon: expected a number between 0 and 1, found 0.0"),
        (
            ("trainable=a,",),
            "the train graph's trainable: expected patterns of names without commas, at least one, found ('a', '')",
        ),
        (("dropout=yes", "dropout=no"), "the train graph's dropout: expected it once, found it twice"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_name(pairs, said):
    with pytest.raises(StepOptionError) as caught:
        parse_step_options(pairs)
    assert str(caught.value) == f"{said}; correct --train-graph (docs/train-graph.md lists what there is)"


def test_an_unknown_name_is_told_with_those_that_there_are():
    with pytest.raises(UnknownNameError, match=r"option of a train graph.*'optimiser'.*optimizer"):
        parse_step_options(("optimiser=adam",))
