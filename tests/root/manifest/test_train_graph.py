"""What goes in and out of a train graph."""

from dataclasses import replace

import pytest

from hedgerow.errors import DecodeError
from hedgerow.manifest.content import Tensor
from hedgerow.manifest.release import Manifest
from hedgerow.manifest.train_graph import Extra
from tests.root.documents import GRAPH, MANIFEST

MOMENTUM = Extra(kind="state", tensor=Tensor("momentum:w", "m", (4,), "float32"), updated="m_after")
ANCHOR = Extra(kind="anchor", tensor=Tensor("anchor:w", "a", (4,), "float32"), parameter="net.0.weight")
MASK = Extra(kind="mask", tensor=Tensor("mask:0", "k", (16, 4), "float32"), keep=0.75)


def with_extras(*extras):
    return replace(MANIFEST, train_graphs=(replace(GRAPH, extras=extras),))


def test_extra_inputs_of_a_train_graph_survive_the_wire_and_a_plain_graph_does_not_name_them():
    manifest = with_extras(MOMENTUM, ANCHOR, MASK)
    assert Manifest.decode(manifest.encode()) == manifest
    assert MOMENTUM.output == Tensor("momentum:w", "m_after", (4,), "float32")
    assert MASK.output is None
    assert b"extras" not in MANIFEST.encode()


@pytest.mark.parametrize(
    "extra",
    [
        replace(MOMENTUM, updated=None),
        replace(MOMENTUM, kind="gradient"),
        replace(ANCHOR, parameter=None),
        replace(MASK, keep=1.5),
        replace(MASK, tensor=replace(MASK.tensor, name="net.0.weight")),
    ],
)
def test_extra_inputs_that_fit_nothing_are_refused(extra):
    with pytest.raises(DecodeError, match="extras"):
        Manifest.decode(with_extras(extra).encode())
