"""What a train graph can be asked for."""

import pytest

from hedgerow.compile.train_graph.options import StepOptions
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
    with pytest.raises(ValueError, match="momentum"):
        StepOptions(optimizer="momentum", momentum=1.0)
