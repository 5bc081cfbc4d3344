"""Which layer loses most by rounding."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402 - needs torch

from hedgerow.compile.layer_losses import LayerLoss, LayerLosses, layer_losses  # noqa: E402
from hedgerow.compile.pass_models import FloatModel  # noqa: E402
from hedgerow.schema import TensorSpec  # noqa: E402
from hedgerow.task import Dataset, Task  # noqa: E402

pytestmark = pytest.mark.heavy


def source(model: nn.Module, shape=(8,)) -> FloatModel:
    task = Task(
        name="t", inputs=[TensorSpec("x", shape)], labels=["a", "b"], model=lambda: model, data=dict, postprocess="none"
    )
    rows = np.random.default_rng(0).normal(size=(32, *shape)).astype(np.float32)
    return FloatModel(task=task, model=model.eval(), calibration=Dataset({"x": rows}, np.zeros(32, np.int64)))


class Unlike(nn.Module):
    """One of its features is a thousand times as large as the others, and is scaled back afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.wide, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.register_buffer("scale", torch.tensor([1000.0] + [1.0] * 7))

    def forward(self, x):
        # The layer gives unlike features only because its weights do.
        return self.last(self.wide(self.first(x)) / self.scale)


def test_the_layer_with_unlike_features_is_the_worst_by_far():
    torch.manual_seed(0)
    model = Unlike()
    with torch.no_grad():
        model.wide.weight.mul_(model.scale[:, None])
        model.wide.bias.mul_(model.scale)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    losses = layer_losses(source(model))

    assert (losses.tried, losses.layers) == (3, 3)
    assert [(loss.layer, loss.kind) for loss in losses.found[:1]] == [("wide", "Linear")]
    assert losses.found[0].snr_db < 20
    assert losses.found[1].snr_db > 35
    assert str(losses).startswith("most is lost where little is left: 'wide' (Linear) ")
    # Nothing of the model is changed, and nothing hangs on it any more.
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_attention_is_one_layer_and_a_model_that_is_a_fast_path_of_torchs_is_rounded_too():
    torch.manual_seed(0)

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.layer(x).mean(dim=1))

    losses = layer_losses(source(Attends(), (4, 8)))

    kinds = {loss.layer: loss.kind for loss in losses.found}
    assert kinds["layer.self_attn"] == "MultiheadAttention"
    assert "layer.self_attn.out_proj" not in kinds
    assert {"layer.linear1", "layer.linear2", "layer.norm1", "layer.norm2", "head"} <= set(kinds)


def test_no_layer_is_begun_after_the_time_is_up_and_the_sentence_says_so():
    times = iter([0.0, 1.0, 30.0])

    losses = layer_losses(source(Unlike()), limit_s=20.0, clock=lambda: next(times))

    assert (losses.tried, losses.layers) == (1, 3)
    assert str(losses).endswith("(1 of 3 layers, each rounded alone to 8 bits in torch)")


FIRST = "'l0' (Linear) 0 dB, 'l1' (Linear) 1 dB, 'l2' (Linear) 2 dB"


def losses_of(*decibels: float) -> LayerLosses:
    found = tuple(LayerLoss(f"l{place}", "Linear", snr_db) for place, snr_db in enumerate(decibels))
    return LayerLosses(found, len(found), len(found))


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        (losses_of(20, 26), "most is lost where little is left: 'l0' (Linear) 20 dB, the next one 26 dB"),
        (losses_of(20, 25), "most is lost where little is left: 'l0' (Linear) 20 dB, 'l1' (Linear) 25 dB"),
        (losses_of(*range(5), 60), f"no layer stands out; {FIRST} and 2 others leave about as little"),
    ],
)
def test_up_to_three_layers_that_are_about_as_bad_are_named(losses, sentence):
    assert str(losses) == f"{sentence} (each rounded alone to 8 bits in torch)"


def test_nothing_is_said_where_no_layer_costs_anything():
    assert str(LayerLosses((), 3, 3)) == ""
