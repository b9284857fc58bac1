"""A recording with fewer passes over memory, and the same numbers."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten

OWN_MEMORY = {  # operations whose result shares its memory with nothing else
    aten.add.Tensor,
    aten.addmm.default,
    aten.bmm.default,
    aten.convolution.default,
    aten.gather.default,
    aten.max_pool2d_with_indices_backward.default,
    aten.mm.default,
    aten.mul.Tensor,
    aten.sub.Tensor,
    aten.threshold_backward.default,
}
PARTS_OF_THEIR_OWN = {aten.convolution_backward.default, aten.native_batch_norm_backward.default}
IN_PLACE = {  # operation → the same into its first argument, and which of its arguments may become that
    aten.add.Tensor: (aten.add_.Tensor, (0, 1)),
    aten.mul.Tensor: (aten.mul_.Tensor, (0, 1)),
    aten.sub.Tensor: (aten.sub_.Tensor, (0,)),
    aten.threshold_backward.default: (aten.threshold_backward.grad_input, (0,)),
}
MADE_FOR_ZERO = {aten.zeros_like.default, aten.zeros.default, aten.new_zeros.default}


class TensorSpec(NamedTuple):
    """What two tensors share where one can be put in the other's place."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> TensorSpec:
        return cls(tensor.shape, tensor.stride(), tensor.dtype)


class RecordingOptimizer:
    """Rewrites a graph whose nodes have their `TensorSpec` in meta["spec"]; `constants` are its placeholders' values.

    Sums with zeros go, and copies. A ReLU's mask is applied to what a max-pooling lets through and not to all that it looks at.
    Sums, products and masks overwrite what nobody else reads. Tensors that the graph itself writes to are left as they are.
    """

    def __init__(self, graph: fx.Graph, constants: dict[fx.Node, Tensor]):
        self.graph, self.constants = graph, constants
        self._pooled: dict[tuple[fx.Node, fx.Node], fx.Node] = {}  # of an activation and where its largest entries are
        self._overwriting: set[fx.Node] = set()

    def rewrite(self) -> None:
        for node in list(self.graph.nodes):
            self._take_shape_from_constant(node)
            for rule in (_without_copy, self._without_zero, self._mask_after_gather, self._mask_before_scatter):
                replacement = rule(node)
                if replacement is not None:
                    node.replace_all_uses_with(replacement)
                    self.graph.erase_node(node)
                    break
        self.graph.eliminate_dead_code()
        for node in self.graph.nodes:
            self._overwrite(node)

    def _without_zero(self, node: fx.Node) -> fx.Node | None:
        """0 + x is x."""
        if node.target is not aten.add.Tensor or node.kwargs or not _is_never_written(node):
            return None
        for zero, other in (node.args, node.args[::-1]):
            if isinstance(other, fx.Node) and _spec(other) == _spec(node) and self._is_zero(zero):
                return other if _is_never_written(other) else None
        return None

    def _is_zero(self, argument: Any) -> bool:
        if argument in self.constants:
            return not bool(self.constants[argument].any())
        return isinstance(argument, fx.Node) and argument.target in MADE_FOR_ZERO and _is_never_written(argument)

    def _take_shape_from_constant(self, node: fx.Node) -> None:
        """The input of a pooling is given to its backward for the shape alone: any other of that shape will do."""
        if node.target is aten.max_pool2d_with_indices_backward.default and self._is_mask(node.args[1]):
            activation = node.args[1].args[1]
            if _spec(activation) == _spec(node.args[1]):
                node.update_arg(1, activation)

    def _mask_after_gather(self, node: fx.Node) -> fx.Node | None:
        """The largest of masked entries are the masked largest entries."""
        if node.target is not aten.gather.default or node.args[1] != -1 or node.args[2] not in self.constants:
            return None
        view, _, places = node.args
        if view.target is not aten.view.default or not self._is_mask(view.args[0]):
            return None
        if _spec(view).shape != (*_spec(view.args[0]).shape[:-2], _spec(view).shape[-1]):
            return None
        unmasked, activation, threshold = view.args[0].args
        if not (_is_never_written(unmasked) and _is_never_written(view.args[0])):
            return None
        with self.graph.inserting_before(node):
            flat = self._call(aten.view.default, unmasked, view.args[1], spec=_spec(view))
            gathered = self._call(aten.gather.default, flat, -1, places, spec=_spec(node))
            return self._masked(gathered, self._at(activation, places), threshold)

    def _mask_before_scatter(self, node: fx.Node) -> fx.Node | None:
        """The mask of what was put in the places of the largest entries is put there with what was masked."""
        if not self._is_mask(node) or node.args[0].target is not aten.max_pool2d_with_indices_backward.default:
            return None
        scattered, activation, threshold = node.args
        slope, *rest, places = scattered.args
        if places not in self.constants or len(scattered.users) > 1 or _spec(scattered) != _spec(node):
            return None
        with self.graph.inserting_before(scattered):
            masked = self._masked(slope, self._at(activation, places), threshold)
        scattered.update_arg(0, masked)
        return scattered

    def _is_mask(self, node: fx.Node) -> bool:
        return node.target is aten.threshold_backward.default and node.args[1] in self.constants

    def _masked(self, node: fx.Node, activation: fx.Node, threshold: float) -> fx.Node:
        return self._call(aten.threshold_backward.default, node, activation, threshold, spec=_spec(node))

    def _at(self, activation: fx.Node, places: fx.Node) -> fx.Node:
        """A constant: the entries of an activation [..., H, W] at places [..., h, w] or [..., h·w] in its planes."""
        if (activation, places) not in self._pooled:
            index = self.constants[places]
            flat = self.constants[activation].flatten(-2)
            entries = flat.gather(-1, index.reshape(*flat.shape[:-1], -1)).reshape(index.shape)
            with self.graph.inserting_before(places.next):
                node = self.graph.placeholder(f"pooled_{len(self._pooled)}")
            node.meta["spec"] = TensorSpec.of(entries)
            self.constants[node] = entries
            self._pooled[activation, places] = node
        return self._pooled[activation, places]

    def _call(self, target: Any, *arguments: Any, spec: TensorSpec) -> fx.Node:
        node = self.graph.call_function(target, arguments)
        node.meta["spec"] = spec
        return node

    def _overwrite(self, node: fx.Node) -> None:
        """Let a sum or a mask write into an argument of which it is the last use."""
        target, positions = IN_PLACE.get(node.target, (None, ()))
        position = next((place for place in positions if self._is_last_use(node, node.args[place])), None)
        if position is None or node.kwargs:
            return
        own, *others = [node.args[position], *(argument for place, argument in enumerate(node.args) if place != position)]
        node.target, node.args = target, (own, *others)
        if target is aten.threshold_backward.grad_input:
            node.kwargs = {"grad_input": own}
        self._overwriting.add(node)

    def _is_last_use(self, node: fx.Node, argument: Any) -> bool:
        """Whether an argument is read by `node` alone, in memory that is nobody else's and of the result's form."""
        if not isinstance(argument, fx.Node) or len(argument.users) > 1 or _spec(argument) != _spec(node):
            return False
        part = argument.target is operator.getitem and argument.args[0].target in PARTS_OF_THEIR_OWN
        return part or argument.target in OWN_MEMORY or argument in self._overwriting


def _without_copy(node: fx.Node) -> fx.Node | None:
    """The copy that forward differentiation makes of a tangent for its form's sake, if nobody writes to it, is the tangent."""
    if node.target is not aten.copy_.default or node.args[0].target is not aten._new_zeros_with_same_feature_meta.default:
        return None
    copied = node.args[1]
    same = _spec(copied) == _spec(node) and _is_never_written(copied) and _is_never_written(node)
    return copied if same else None


def _is_never_written(node: fx.Node) -> bool:
    """Whether no operation writes to it, nor to a view of it."""
    for user in node.users:
        schema = getattr(user.target, "_schema", None)
        if schema is None:
            continue
        given = [*zip(schema.arguments, user.args, strict=False), *((a, user.kwargs.get(a.name)) for a in schema.arguments)]
        written = [value for argument, value in given if argument.alias_info is not None and argument.alias_info.is_write]
        views = any(result.alias_info is not None for result in schema.returns)
        if node in tree_leaves(written) or (views and not _is_never_written(user)):
            return False
    return True


def _spec(node: Any) -> TensorSpec | None:
    return node.meta.get("spec") if isinstance(node, fx.Node) else None
