"""A graph for one cell, rewritten for a batch of cells: each varying tensor gets a first dimension that counts them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_flatten, tree_unflatten

from loss_landscape.graphs.output_buffers import reused
from loss_landscape.graphs.tiled_pooling import pool_by_maxima

aten = torch.ops.aten

IN_PLACE = {
    aten.relu.default: aten.relu_.default,
    aten.leaky_relu.default: aten.leaky_relu_.default,
    aten.tanh.default: aten.tanh_.default,
    aten.sigmoid.default: aten.sigmoid_.default,
    aten.silu.default: aten.silu_.default,
    aten.elu.default: aten.elu_.default,
    aten.gelu.default: aten.gelu_.default,
}
FRESH = {  # operations whose output nobody else can see
    aten.addmm.default,
    aten.mm.default,
    aten.bmm.default,
    aten.convolution.default,
    aten.native_batch_norm.default,
    aten.add.Tensor,
    aten.mul.Tensor,
}
INTO = {  # operation of one output → the same with `out`
    aten.add.Tensor: torch.add,
    aten.sub.Tensor: torch.sub,
    aten.mul.Tensor: torch.mul,
    aten.div.Tensor: torch.div,
    aten.relu.default: lambda source, out: torch.clamp_min(source, 0, out=out),
    aten.tanh.default: torch.tanh,
    aten.threshold_backward.default: lambda *arguments, out: aten.threshold_backward.grad_input(*arguments, grad_input=out),
    aten.tanh_backward.default: lambda *arguments, out: aten.tanh_backward.grad_input(*arguments, grad_input=out),
}
VIEWS = {aten.view.default, aten._unsafe_view.default}
THIN = 16  # columns; with fewer of them a CPU's product takes up to five times as long as its transpose


def one_cell(
    varying: Iterable[fx.Node], inputs: list[fx.Node], output: fx.Node, overwritable: set[fx.Node], *, reusing: bool
) -> fx.GraphModule:
    """The `varying` nodes as a function of `inputs`; activations overwrite what nobody else reads, `overwritable` inputs too.

    With `reusing`, what max-pooling gives is written over what it gave the last time.
    """
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in inputs}
    for node in varying:
        copies[node] = graph.node_copy(node, copies.__getitem__)
        if node.target in VIEWS:
            copies[node].target = torch.reshape  # a channels-last tensor has no view
        if _may_overwrite(node, overwritable):
            copies[node].target = IN_PLACE[node.target]
    graph.output(copies[output])
    graph.eliminate_dead_code()
    if reusing:
        pool_by_maxima(graph)
    return _whole(graph)


def many_cells(
    varying: Iterable[fx.Node], frontier: list[fx.Node], constants: list[fx.Node], output: fx.Node, *, reusing: bool
) -> fx.GraphModule:
    """The same for tensors [K, …] in place of `frontier` and the `constants` as they are, in that order; it gives [K].

    With `reusing`, products are written over those of the last call: on a CPU fresh memory costs more than a small product.
    """
    batcher = _Batcher(frontier, constants, reusing)
    for node in varying:
        batcher.add(node)
    batcher.graph.output(batcher.batched[output])
    return _whole(batcher.graph)


def _whole(graph: fx.Graph) -> fx.GraphModule:
    graph.eliminate_dead_code()
    graph.lint()
    return fx.GraphModule(torch.nn.Module(), graph)


def _may_overwrite(node: fx.Node, overwritable: set[fx.Node]) -> bool:
    if node.target not in IN_PLACE:
        return False
    source = node.args[0]
    made = source.args[0] if source.target is operator.getitem else source
    return len(source.users) == 1 and (source in overwritable or made.target in FRESH or made.target in IN_PLACE)


class _Batcher:
    """Adds nodes one by one; `batched` are what they became."""

    def __init__(self, frontier: list[fx.Node], constants: list[fx.Node], reusing: bool):
        self.graph, self.reusing = fx.Graph(), reusing
        self.batched = {node: self.graph.placeholder(node.name) for node in [*frontier, *constants]}
        self.varying, self.overwritable = set(frontier), set(frontier)

    def add(self, node: fx.Node) -> None:
        """Append what `node` is for all cells."""
        rule = RULES.get(node.target) or (_pointwise if _is_pointwise(node) else None)
        made = rule(self, node) if rule else None
        self.batched[node] = made or _vmapped(self, node)
        self.varying.add(node)

    def call(self, target: Callable[..., Any], *arguments: Any, **keywords: Any) -> fx.Node:
        """A new node."""
        return self.graph.call_function(target, arguments, keywords)

    def call_reusing(self, target: Callable[..., Any], into: Callable[..., Any], *arguments: Any) -> fx.Node:
        """A new node whose results share their memory, if that is wanted; `into` is the target with `out`."""
        return self.call(reused(target, into) if self.reusing else target, *arguments)

    def batched_argument(self, argument: Any) -> Any:
        """An argument in the new graph."""
        return fx.node.map_arg(argument, self.batched.__getitem__)

    def varies(self, argument: Any) -> bool:
        """Whether an argument differs from cell to cell."""
        return isinstance(argument, fx.Node) and argument in self.varying


def _is_pointwise(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and (
        torch.Tag.pointwise in node.target.tags or node.target is aten._to_copy.default
    )


def _pointwise(batcher: _Batcher, node: fx.Node) -> fx.Node:
    """The operation itself, where its tensors line up from the right."""
    dims = max(map(_dim, node.all_input_nodes))

    def aligned(argument: fx.Node) -> fx.Node:
        made = batcher.batched[argument]
        for _ in range(dims - _dim(argument) if batcher.varies(argument) else 0):
            made = batcher.call(torch.unsqueeze, made, 1)
        return made

    target, arguments, keywords = node.target, *(fx.node.map_arg(part, aligned) for part in (node.args, node.kwargs))
    if _may_overwrite(node, batcher.overwritable):
        target = IN_PLACE[target]
    if target in INTO and not keywords:
        return batcher.call_reusing(target, INTO[target], *arguments)
    return batcher.call(target, *arguments, **keywords)


def _product(batcher: _Batcher, node: fx.Node) -> fx.Node | None:
    first, second = node.args
    if batcher.varies(first) and batcher.varies(second):
        return _products_of_cells(batcher, first, second)
    return batcher.call_reusing(torch.matmul, torch.matmul, *batcher.batched_argument((first, second)))


def _affine_product(batcher: _Batcher, node: fx.Node) -> fx.Node | None:
    addend, first, second = node.args
    if node.kwargs or not (batcher.varies(first) and batcher.varies(second)):
        return None
    added = batcher.batched_argument(addend)
    if batcher.varies(addend) and _dim(addend) == 1:
        added = batcher.call(torch.unsqueeze, added, 1)
    product = _products_of_cells(batcher, first, second)
    return batcher.call(aten.add_.Tensor, product, added)  # baddbmm copies what it adds beforehand, which takes longer


def _products_of_cells(batcher: _Batcher, first: fx.Node, second: fx.Node) -> fx.Node:
    """[K, N, I] by [K, I, O] gives [K, N, O]; on a CPU a thin one is computed transposed, [K, O, N], and transposed back."""
    factors = batcher.batched_argument((first, second))
    if not batcher.reusing or second.meta["val"].shape[1] >= THIN:
        return batcher.call_reusing(torch.bmm, torch.bmm, *factors)
    transposed = [batcher.call(torch.transpose, factor, 1, 2) for factor in reversed(factors)]
    return batcher.call(torch.transpose, batcher.call_reusing(torch.bmm, torch.bmm, *transposed), 1, 2)


def _view(batcher: _Batcher, node: fx.Node) -> fx.Node:
    shape = [-1, *node.meta["val"].shape]  # not the argument, which may hold a -1
    return batcher.call(torch.reshape, batcher.batched_argument(node.args[0]), shape)


def _transposed(batcher: _Batcher, node: fx.Node) -> fx.Node:
    source = batcher.batched_argument(node.args[0])
    return batcher.call(torch.transpose, source, 1, 2) if _dim(node.args[0]) == 2 else source


def _sum(batcher: _Batcher, node: fx.Node) -> fx.Node:
    source, dims, *keep = node.args
    shifted = [d + 1 if d >= 0 else d for d in (dims or range(_dim(source)))]
    return batcher.call(node.target, batcher.batched_argument(source), shifted, *keep, **node.kwargs)


def _total(batcher: _Batcher, node: fx.Node) -> fx.Node | None:
    if node.kwargs or _dim(node.args[0]) == 0:
        return None
    return batcher.call(torch.sum, batcher.call(torch.flatten, batcher.batched_argument(node.args[0]), 1), 1)


def _along_a_dimension(batcher: _Batcher, node: fx.Node) -> fx.Node | None:
    """Operations (tensor, dim, …), such as log-softmax."""
    source, dim, *rest = node.args
    return batcher.call(node.target, batcher.batched_argument(source), dim + 1 if dim >= 0 else dim, *rest)


def _log_softmax(batcher: _Batcher, node: fx.Node) -> fx.Node | None:
    if _is_cross_entropy(node):
        return batcher.batched_argument(node.args[0])
    return _along_a_dimension(batcher, node)


def _negative_log_likelihood(batcher: _Batcher, node: fx.Node) -> fx.Node | None:
    log_probabilities, targets, weight, reduction, ignored = node.args
    if batcher.varies(targets) or batcher.varies(weight) or not _is_cross_entropy(log_probabilities):
        return None
    outputs, labels, weights = batcher.batched_argument((log_probabilities, targets, weight))
    return batcher.call(cross_entropy, outputs, labels, weights, reduction, ignored)


def _is_cross_entropy(node: fx.Node) -> bool:
    """Whether a log-softmax over [N, C] is read by a negative log likelihood alone, so that neither need be made."""
    reader = next(iter(node.users), None)
    return (
        node.target is aten._log_softmax.default
        and len(node.users) == 1
        and reader.target is aten.nll_loss_forward.default
        and reader.args[3] in (1, 2)
        and all(use.args[1] == 0 for use in reader.users)
        and _dim(node) == 2
    )


def cross_entropy(outputs: Tensor, labels: Tensor, weight: Tensor | None, reduction: int, ignored: int) -> tuple[Tensor, None]:
    """The cross entropies [K] of outputs [K, N, C] with the same labels [N], as torch's nll_loss gives them (1 mean, 2 sum)."""
    counted = labels != ignored
    safe = torch.where(counted, labels, 0)
    shares = counted.to(outputs.dtype) if weight is None else torch.where(counted, weight[safe], 0)
    picked = outputs.gather(2, safe.expand(len(outputs), -1).unsqueeze(2)).squeeze(2)
    losses = torch.where(counted, torch.logsumexp(outputs, dim=2) - picked, 0) @ shares
    return (losses / shares.sum() if reduction == 1 else losses), None


def _getitem(batcher: _Batcher, node: fx.Node) -> fx.Node:
    return batcher.call(operator.getitem, batcher.batched_argument(node.args[0]), node.args[1])


def _slice_scatter(batcher: _Batcher, node: fx.Node) -> fx.Node:
    """By torch's own rule, which takes no bounds but those within the tensor, counted from its start."""
    source, part, *places = node.args
    given: tuple[Any, ...] = (*places, *(0, None, None, 1)[len(places) :])
    dim, *bounds = given
    start, end, step = slice(*bounds).indices(node.meta["val"].shape[dim])
    return _vmapped(batcher, node, (source, part, dim, start, max(start, end), step))


def _vmapped(batcher: _Batcher, node: fx.Node, with_arguments: tuple[Any, ...] | None = None) -> fx.Node:
    """Any other operation, by torch's own rule for it; perhaps with other arguments than the node's."""
    arguments, spec = tree_flatten((with_arguments or node.args, node.kwargs))
    places = [i for i, argument in enumerate(arguments) if isinstance(argument, fx.Node)]

    def once(*tensors: Tensor) -> Any:
        filled = list(arguments)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        args, kwargs = tree_unflatten(filled, spec)
        made = node.target(*args, **kwargs)
        return made if isinstance(made, Tensor) else tuple(torch.empty(0) if part is None else part for part in made)

    each = _without_warnings(torch.vmap(once, in_dims=tuple(0 if batcher.varies(arguments[place]) else None for place in places)))
    each.__name__ = f"each_{node.name}"
    return batcher.call(each, *(batcher.batched_argument(arguments[place]) for place in places))


def _without_warnings(vmapped: Callable[..., Any]) -> Callable[..., Any]:
    """The function without a line on the terminal, past Python's filters, for each operation that vmap takes one by one."""

    def quiet(*arguments: Any) -> Any:
        torch._C._functorch._set_vmap_fallback_warning_enabled(False)
        try:
            return vmapped(*arguments)
        finally:
            torch._C._functorch._set_vmap_fallback_warning_enabled(True)  # as torch has it; it can't be asked

    return quiet


def _dim(node: fx.Node) -> int:
    value = node.meta.get("val")
    return value.dim() if isinstance(value, Tensor) else 0


RULES: dict[Any, Callable[[_Batcher, fx.Node], fx.Node | None]] = {
    aten.mm.default: _product,
    aten.addmm.default: _affine_product,
    aten.view.default: _view,
    aten._unsafe_view.default: _view,
    aten.t.default: _transposed,
    aten.sum.dim_IntList: _sum,
    aten.sum.default: _total,
    aten._log_softmax.default: _log_softmax,
    aten.nll_loss_forward.default: _negative_log_likelihood,
    aten.slice_scatter.default: _slice_scatter,
    operator.getitem: _getitem,
}
