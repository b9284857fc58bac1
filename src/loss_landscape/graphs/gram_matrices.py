"""A first layer's gradient is never made where a step along it is all that is asked.

A layer Z = X Wᵀ of data X [B, d] has the gradient G = ΔᵀX, Δ = ∂L/∂Z [B, h]. A step W + sG then gives Z + s(XXᵀ)Δ, and
‖G‖² = ⟨Δ, XXᵀΔ⟩: with the Gram matrix XXᵀ [B, B], made once, neither takes d products an entry any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from loss_landscape.graphs.tracing import placeholders

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class _Outer:
    """G = ΔᵀX."""

    delta: fx.Node  # [B, h]
    data: fx.Node  # [B, d], depends on no parameter


def with_gram_matrices(graph: fx.GraphModule, num_parameters: int) -> fx.GraphModule:
    """The graph with steps along first layers' gradients rewritten, where B products an entry are fewer than 2d."""
    nodes = graph.graph
    data = _constants(graph, num_parameters)
    grams = _Grams(nodes)
    for node in list(nodes.nodes):
        if node.target in (aten.addmm.default, aten.mm.default):
            _rewrite_layer(node, data, grams)
        elif node.target is aten.sum.default and len(node.args) == 1:
            _rewrite_norm(node, data, grams)
    nodes.eliminate_dead_code()
    nodes.lint()
    graph.recompile()
    return graph


class _Grams:
    """XXᵀΔ, once for each gradient."""

    def __init__(self, graph: fx.Graph):
        self.graph = graph
        self._made: dict[fx.Node, fx.Node] = {}

    def times_delta(self, outer: _Outer) -> fx.Node:
        """The node (XXᵀ)Δ, right behind Δ."""
        if outer.delta not in self._made:
            with self.graph.inserting_after(outer.delta):
                transposed = self.call(aten.t.default, outer.data, like=outer.data.meta["val"].T)
            with self.graph.inserting_after(transposed):
                gram = self.call(aten.mm.default, outer.data, transposed, like=outer.data.meta["val"] @ outer.data.meta["val"].T)
            with self.graph.inserting_after(gram):
                self._made[outer.delta] = self.call(aten.mm.default, gram, outer.delta, like=outer.delta.meta["val"])
        return self._made[outer.delta]

    def call(self, target: Any, *arguments: Any, like: Any) -> fx.Node:
        """A new node whose value has the shape of `like`."""
        node = self.graph.call_function(target, arguments)
        node.meta["val"] = like
        return node


def _rewrite_layer(node: fx.Node, data: set[fx.Node], grams: _Grams) -> None:
    """X (W + sG)ᵀ + (b + sg) → (X Wᵀ + b) + s ((XXᵀ)Δ + g)."""
    *addend, inputs, weight = node.args
    moved = _step(weight.args[0]) if weight.target is aten.t.default else None
    if moved is None or node.kwargs:
        return
    origin, scale, gradient = moved
    outer = _outer(gradient, data)
    shift = _step(addend[0]) if addend else None
    if outer is None or not _same(inputs, outer.data) or (addend and (shift is None or shift[1] is not scale)):
        return
    at_origin = _layer(node, inputs, origin, shift[0] if shift else None)
    if at_origin is None:
        return
    value = node.meta["val"]
    image = grams.times_delta(outer)
    with grams.graph.inserting_before(node):
        if shift:
            image = grams.call(aten.add.Tensor, image, shift[2], like=value)
        scaled = grams.call(aten.mul.Tensor, image, scale, like=value)
        stepped = grams.call(aten.add.Tensor, at_origin, scaled, like=value)
    node.replace_all_uses_with(stepped)


def _rewrite_norm(node: fx.Node, data: set[fx.Node], grams: _Grams) -> None:
    """Σ G² → Σ Δ·(XXᵀ)Δ."""
    square = node.args[0]
    if square.target is not aten.mul.Tensor or square.args[0] is not square.args[1]:
        return
    outer = _outer(square.args[0], data)
    if outer is None:
        return
    image = grams.times_delta(outer)
    with grams.graph.inserting_before(node):
        product = grams.call(aten.mul.Tensor, outer.delta, image, like=outer.delta.meta["val"])
    node.update_arg(0, product)


def _constants(graph: fx.GraphModule, num_parameters: int) -> set[fx.Node]:
    """The nodes that depend on no parameter."""
    found: set[fx.Node] = set()
    parameters = set(placeholders(graph)[:num_parameters])
    for node in graph.graph.nodes:
        if node not in parameters and node.op != "output" and all(used in found for used in node.all_input_nodes):
            found.add(node)
    return found


def _step(node: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node] | None:
    """(p, s, g) of p + s·g, s a scalar."""
    if node.target is not aten.add.Tensor or node.kwargs or not isinstance(node.args[1], fx.Node):
        return None
    origin, change = node.args
    if change.target is not aten.mul.Tensor or not all(isinstance(factor, fx.Node) for factor in change.args):
        return None
    first, second = change.args
    return (origin, first, second) if first.meta["val"].dim() == 0 else (origin, second, first)


def _outer(node: fx.Node, data: set[fx.Node]) -> _Outer | None:
    """Δ and X of a gradient ΔᵀX of data, if the Gram matrix is the cheaper way."""
    while node.target is aten.t.default and node.args[0].target is aten.t.default:
        node = node.args[0].args[0]
    if node.target is not aten.mm.default or node.args[0].target is not aten.t.default or node.args[1] not in data:
        return None
    inputs = node.args[1].meta["val"]
    return _Outer(node.args[0].args[0], node.args[1]) if len(inputs) < 2 * inputs.shape[1] else None


def _layer(before: fx.Node, inputs: fx.Node, weight: fx.Node, bias: fx.Node | None) -> fx.Node | None:
    """The node of the same layer at the origin, `before` that of the step."""
    for node in before.graph.nodes:
        if node is before:
            return None
        if node.target is before.target and not node.kwargs and node.args[-1].target is aten.t.default:
            *addend, own, transposed = node.args
            if _same(own, inputs) and transposed.args[0] is weight and (addend[0] if addend else None) is bias:
                return node
    return None


def _same(one: Any, other: Any) -> bool:
    """Whether two nodes are the same function of the same inputs."""
    if not (isinstance(one, fx.Node) and isinstance(other, fx.Node)):
        return one == other
    return one is other or (
        one.op == other.op == "call_function"
        and one.target is other.target
        and one.kwargs == other.kwargs
        and len(one.args) == len(other.args)
        and all(map(_same, one.args, other.args))
    )
