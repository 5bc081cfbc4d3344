"""Tell apart what a softmax sees of a tensor and what a mask hides from it, by looking at how the tensor was made.

A mask is any addition, subtraction, fill or choice that makes numbers so low that softmax gives them zero: minus
infinity, the lowest float, -1e9, or less where the scores are small. Both sides are written anew as a truth value for
each number (hidden or not) and as numbers that hold no mask any more.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

__all__ = ["Parts", "Splitter"]

_aten = torch.ops.aten
# What only moves numbers: a mask may pass through it on its way to the scores.
_MOVES = {
    _aten.view.default, _aten.reshape.default, _aten._unsafe_view.default, _aten.expand.default,  # noqa: SLF001
    _aten.unsqueeze.default, _aten.squeeze.default, _aten.squeeze.dim, _aten.squeeze.dims, _aten.transpose.int,
    _aten.permute.default, _aten.clone.default, _aten.contiguous.default, _aten.slice.Tensor, _aten.select.int,
    _aten.alias.default, _aten.detach.default, _aten.repeat.default, _aten.flatten.using_ints, _aten.unflatten.int,
    _aten.t.default, _aten.lift_fresh_copy.default,
}  # fmt: skip
_CASTS = {
    _aten.to.dtype, _aten.to.dtype_layout, _aten._to_copy.default,  # noqa: SLF001  # the operators' names
    _aten.to.device, _aten.type_as.default,
}  # fmt: skip
_ZEROS = {_aten.zeros.default, _aten.zeros_like.default, _aten.new_zeros.default}
_COUNTS = {_aten.bitwise_and.Tensor, _aten.bitwise_or.Tensor, _aten.mul.Tensor, _aten.add.Tensor, _aten.sub.Tensor}
_PRODUCTS = {
    _aten.matmul.default, _aten.bmm.default, _aten.baddbmm.default, _aten.mm.default, _aten.addmm.default,
    _aten.linear.default, _aten.einsum.default, _aten.embedding.default, _aten.conv1d.default, _aten.conv2d.default,
    _aten.scaled_dot_product_attention.default,
}  # fmt: skip
_SMALLEST = 1e-37
_HALF = 0.5


@dataclass(frozen=True, slots=True)
class Parts:
    """A tensor in two parts.

    Attributes:
        hidden: Truth values: what a mask hides; None: nothing.
        shown: The numbers without the mask; what they are where something is hidden says nothing. None: zeros.
    """

    hidden: fx.Node | None
    shown: fx.Node | None


class Splitter:
    """Splits tensors of one graph; new nodes stand where the graph inserts.

    Args:
        graph: The traced graph.
        constants: Values of what does not depend on inputs.
        keep: Stores a tensor in the module, and returns its node.
    """

    def __init__(
        self,
        graph: fx.Graph,
        constants: Mapping[fx.Node, torch.Tensor],
        keep: Callable[[torch.Tensor], fx.Node],
    ) -> None:
        self._graph, self._constants, self._keep = graph, constants, keep

    def split(self, node: fx.Node, depth: float, sign: int = 1) -> Parts:
        """Return *node* without what is at least *depth* below zero.

        Args:
            node: A tensor of floats.
            depth: How far below zero a number is hidden. Above zero.
            sign: -1: hidden is what is at least *depth* above zero, because the tensor is subtracted.
        """
        if node in self._constants:
            return self._constant(node, depth, sign)
        if node.op != "call_function":
            return Parts(None, node)
        target: Any = node.target
        args = node.args
        if target in _ZEROS:
            return Parts(None, None)
        if target in _MOVES or target in _CASTS:
            return self._moved(node, self.split(_node(args[0]), depth, sign))
        rule = {
            _aten.masked_fill.Scalar: self._fill,
            _aten.masked_fill.Tensor: self._fill,
            _aten.where.self: self._where,
            _aten.where.ScalarOther: self._where,
            _aten.where.ScalarSelf: self._where,
            _aten.add.Tensor: self._sum,
            _aten.sub.Tensor: self._sum,
            _aten.mul.Tensor: self._product,
            _aten.mul.Scalar: self._product,
            _aten.div.Tensor: self._product,
            _aten.div.Scalar: self._product,
            _aten.neg.default: self._product,
            _aten.maximum.default: self._at_least,
            _aten.clamp.default: self._at_least,
            _aten.clamp_min.default: self._at_least,
            _aten.log.default: self._log,
            _aten.baddbmm.default: self._batch_product,
        }.get(target)
        return Parts(None, node) if rule is None else rule(node, depth, sign)

    def call(self, target: Any, *args: Any) -> fx.Node:
        """Insert a call."""
        return self._graph.call_function(target, args)

    def either(self, one: fx.Node | None, other: fx.Node | None) -> fx.Node | None:
        """Return what is hidden by one of two masks."""
        if one is None or other is None:
            return other if one is None else one
        return self.call(_aten.logical_or.default, one, other)

    def _constant(self, node: fx.Node, depth: float, sign: int) -> Parts:
        value = self._constants[node]
        if not value.is_floating_point():
            return Parts(None, node)
        hidden = value * sign <= -depth
        if not hidden.any():
            return Parts(None, node)
        shown = value.masked_fill(hidden, 0)
        return Parts(self._keep(hidden), self._keep(shown) if shown.any() else None)

    def _number(self, value: Any) -> float | None:
        """Return the one number that a constant argument holds, or None."""
        if isinstance(value, fx.Node):
            tensor = self._constants.get(value)
            # A bound of many equal numbers is one number too.
            if tensor is None or tensor.numel() == 0 or not bool((tensor == tensor.flatten()[0]).all()):
                return None
            return float(tensor.flatten()[0])
        return float(value) if isinstance(value, int | float) else None

    def _hides(self, value: Any, depth: float, sign: int) -> bool:
        number = self._number(value)
        return number is not None and number * sign <= -depth

    def _moved(self, node: fx.Node, parts: Parts) -> Parts:
        if parts.hidden is None:
            # Moved zeros are zeros: nothing is added to them.
            return Parts(None, None if parts.shown is None else node)
        if node.target in _CASTS:
            return Parts(parts.hidden, None if parts.shown is None else self._again(node, parts.shown))
        return Parts(self._again(node, parts.hidden), None if parts.shown is None else self._again(node, parts.shown))

    def _again(self, node: fx.Node, first: fx.Node) -> fx.Node:
        """Insert the same call on another first argument."""
        return self._graph.call_function(node.target, (first, *node.args[1:]), dict(node.kwargs))  # type: ignore[arg-type]

    def _fill(self, node: fx.Node, depth: float, sign: int) -> Parts:
        values, chosen, fill = node.args[:3]
        if not self._hides(fill, depth, sign):
            return Parts(None, node)
        parts = self.split(_node(values), depth, sign)
        return Parts(self.either(parts.hidden, _node(chosen)), parts.shown)

    def _where(self, node: fx.Node, depth: float, sign: int) -> Parts:
        chosen, one, other = node.args[:3]
        if self._hides(one, depth, sign):
            hidden, rest = _node(chosen), other
        elif self._hides(other, depth, sign):
            hidden, rest = self.call(_aten.logical_not.default, chosen), one
        else:
            return Parts(None, node)
        number = self._number(rest)
        if number == 0:
            return Parts(hidden, None)
        if not isinstance(rest, fx.Node):
            return Parts(hidden, self._keep(torch.tensor(number)))
        parts = self.split(rest, depth, sign)
        return Parts(self.either(hidden, parts.hidden), parts.shown)

    def _sum(self, node: fx.Node, depth: float, sign: int) -> Parts:
        if node.kwargs.get("alpha", 1) != 1 or not isinstance(node.args[0], fx.Node):
            return Parts(None, node)
        one, other = node.args[0], node.args[1]
        first = self.split(one, depth, sign)
        is_sum = node.target is _aten.add.Tensor
        if not isinstance(other, fx.Node):
            second = Parts(None, None)
        else:
            second = self.split(other, depth, sign if is_sum else -sign)
        hidden = self.either(first.hidden, second.hidden)
        if hidden is None:
            return Parts(None, node)
        if not isinstance(other, fx.Node):
            rest = first.shown if first.shown is not None else self._keep(torch.tensor(0.0))
            return Parts(hidden, self.call(node.target, rest, other))
        if second.shown is None:
            return Parts(hidden, first.shown)
        if first.shown is None:
            return Parts(hidden, second.shown if is_sum else self.call(_aten.neg.default, second.shown))
        return Parts(hidden, self.call(node.target, first.shown, second.shown))

    def _product(self, node: fx.Node, depth: float, sign: int) -> Parts:
        values, factor = self._factor(node)
        if values is None or factor is None or factor == 0 or not math.isfinite(factor):
            return Parts(None, node)
        size, turned = abs(factor), sign if factor > 0 else -sign
        parts = self.split(values, depth / size, turned)
        if parts.hidden is not None:
            return Parts(parts.hidden, None if parts.shown is None else self._scaled(node, parts.shown))
        if size < depth:
            return Parts(None, node)
        # Numbers that are zero or one as a rule, times a mask's depth.
        value = values.meta.get("val")
        if isinstance(value, torch.Tensor) and not value.is_floating_point():
            if value.dtype == torch.bool:
                return Parts(values, None) if turned < 0 else Parts(None, node)
            return Parts(self._beyond(values, 1, turned), None)
        if self._is_whole(values):
            return Parts(self._beyond(values, _HALF, turned), None)
        if not self._is_given(values):
            # Scores that are scaled are no mask.
            return Parts(None, node)
        hidden = self._beyond(values, max(depth / size, _SMALLEST), turned)
        return Parts(hidden, self._scaled(node, self.call(_aten.masked_fill.Scalar, values, hidden, 0.0)))

    def _beyond(self, values: fx.Node, bound: float, sign: int) -> fx.Node:
        """Return where *values* are as far as *bound* below zero; above it for the sign -1."""
        if sign > 0:
            return self.call(_aten.le.Scalar, values, -bound)
        return self.call(_aten.ge.Scalar, values, bound)

    def _is_given(self, node: fx.Node) -> bool:
        """Say whether numbers come from inputs and constants alone, and no weight was multiplied with them."""
        seen, left = set[fx.Node](), [node]
        while left:
            one = left.pop()
            if one in seen:
                continue
            seen.add(one)
            if one.op == "get_attr" and one not in self._constants:
                return False
            if one.op == "call_function" and one.target in _PRODUCTS:
                return False
            left += one.all_input_nodes
        return True

    def _factor(self, node: fx.Node) -> tuple[fx.Node | None, float | None]:
        """Return what is scaled, and by what."""
        if node.target is _aten.neg.default:
            return _node(node.args[0]), -1.0
        one, other = node.args[0], node.args[1]
        if isinstance(one, fx.Node) and (number := self._number(other)) is not None:
            if node.target in {_aten.div.Tensor, _aten.div.Scalar}:
                return one, 1 / number if number else None
            return one, number
        if node.target is _aten.mul.Tensor and isinstance(other, fx.Node):
            return other, self._number(one)
        return None, None

    def _scaled(self, node: fx.Node, values: fx.Node) -> fx.Node:
        _old, factor = self._factor(node)
        return self.call(_aten.mul.Tensor, values, factor)

    def _is_whole(self, node: fx.Node) -> bool:
        """Say whether a tensor can hold whole numbers only: it was made of truth values or of integers."""
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and not value.is_floating_point():
            return True
        if node in self._constants:
            return bool((self._constants[node] == self._constants[node].round()).all())
        if node.op != "call_function":
            return False
        if node.target in _MOVES or node.target in _CASTS or node.target is _aten.neg.default:
            return self._is_whole(_node(node.args[0]))
        if node.target in _COUNTS or node.target is _aten.rsub.Scalar:
            return all(
                self._is_whole(part) if isinstance(part, fx.Node) else float(part).is_integer()  # type: ignore[arg-type]
                for part in node.args[:2]
            )
        return False

    def _at_least(self, node: fx.Node, depth: float, sign: int) -> Parts:
        if len(node.args) > 2 or node.kwargs or sign < 0 or not self._hides(node.args[1], depth, sign):
            return Parts(None, node)
        parts = self.split(_node(node.args[0]), depth, sign)
        return parts if parts.hidden is not None else Parts(None, node)

    def _log(self, node: fx.Node, depth: float, sign: int) -> Parts:
        values = _node(node.args[0])
        if sign < 0 or not (self._is_whole(values) or self._is_whole_below(values)):
            return Parts(None, node)
        hidden = self.call(_aten.le.Scalar, values, max(math.exp(-depth), _SMALLEST))
        return Parts(hidden, self.call(_aten.log.default, self.call(_aten.masked_fill.Scalar, values, hidden, 1.0)))

    def _is_whole_below(self, node: fx.Node) -> bool:
        """Say whether a tensor is whole numbers with a tiny one added, against the logarithm of zero."""
        plain = node.op == "call_function" and node.target is _aten.add.Tensor
        number = self._number(node.args[1]) if plain else None
        return number is not None and 0 < number < _SMALLEST**0.1 and self._is_whole(_node(node.args[0]))

    def _batch_product(self, node: fx.Node, depth: float, sign: int) -> Parts:
        if node.kwargs or sign < 0:
            return Parts(None, node)
        added, one, other = node.args[:3]
        parts = self.split(_node(added), depth, sign)
        if parts.hidden is None:
            return Parts(None, node)
        product = self.call(_aten.bmm.default, one, other)
        shown = product if parts.shown is None else self.call(_aten.add.Tensor, parts.shown, product)
        return Parts(parts.hidden, shown)


def _node(value: Any) -> fx.Node:
    if not isinstance(value, fx.Node):
        raise TypeError(f"expected a node, found {value!r}")
    return value
