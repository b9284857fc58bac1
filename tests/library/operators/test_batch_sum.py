"""What the operators keep between products, and what they do where memory runs out."""

from __future__ import annotations

import copy
import gc
import weakref
from dataclasses import replace

import pytest
import torch
from nets import cases, mlp
from torch import Tensor, nn

from loss_landscape import EmpiricalFisherOperator, GaussNewtonOperator, HessianOperator, LossSurface
from loss_landscape.graphs.recording import Recording
from loss_landscape.operators.batch_sum import BatchSum
from loss_landscape.operators.hessian_products import retained_terms, traced_terms

ALL = {case.name: case for case in cases()}
OPERATORS = [HessianOperator, GaussNewtonOperator, EmpiricalFisherOperator]


def surface_of(name: str) -> LossSurface:
    case = copy.deepcopy(ALL[name])
    return LossSurface(case.model, case.loss_fn, case.batches)


# What is kept


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("name", ["cross_entropy", "conv"])
def test_graphs_beyond_the_memory_budget_are_rebuilt_with_the_same_result(kind, name):
    surface = surface_of(name)
    kept, rebuilt = kind(surface), kind(surface, memory_budget_mb=0)
    vector = torch.randn(surface.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(kept @ vector, rebuilt @ vector, rtol=1e-12, atol=1e-15)
    assert torch.equal(rebuilt @ vector, rebuilt @ vector)


@pytest.mark.parametrize(("budget", "num_kept"), [(0, 0), (3, 0), (4, 1), (9, 2), (100, 3)])
def test_as_many_graphs_are_kept_as_fit_into_the_budget(budget, num_kept):
    surface = surface_of("cross_entropy")
    used = replace(surface.objective.used, activation_bytes=2**20)
    surface.objective = replace(surface.objective, used=used)  # 4 MiB a graph, by the rule
    products = BatchSum(surface, retained_terms, budget, "error")
    vector = torch.ones(surface.size, 1, dtype=torch.float64)
    first = products(vector)
    assert len(products._kept) == num_kept
    assert torch.equal(products(vector), first)


def test_what_is_traced_counts_as_what_it_holds(monkeypatch):
    surface = surface_of("conv")
    held = [term.lasting().num_bytes for term in traced_terms(surface)]
    assert all(1000 < size < 100_000 for size in held)
    monkeypatch.setattr("loss_landscape.operators.batch_sum.TENSORS_KEPT_AN_ACTIVATION", 0)
    traced: list[str] = []

    class Counted(Recording):
        def __init__(self, *ingredients):
            traced.append("one")
            super().__init__(*ingredients)

    monkeypatch.setattr("loss_landscape.operators.hessian_products.Recording", Counted)
    products = BatchSum(surface, traced_terms, 1, "error")
    products._budget = held[0] + held[1]
    vector = torch.ones(surface.size, 1, dtype=torch.float64)
    first = products(vector)
    assert len(products._kept) == 2
    assert torch.equal(products(vector), first)
    assert len(traced) == 3  # the last in vain, but once and not for each product


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("how", ["deleted", "released"])
def test_an_operator_that_goes_away_or_is_released_frees_its_graphs(kind, how):
    born: list[weakref.ref] = []

    class Watched(LossSurface):
        def leaves(self) -> dict[str, Tensor]:
            made = super().leaves()
            born.extend(weakref.ref(leaf) for leaf in made.values())
            return made

    case = ALL["cross_entropy"]
    operator = kind(Watched(case.model, case.loss_fn, case.batches))
    gc.collect()
    gc.disable()
    try:
        vector = torch.ones(operator.size, dtype=torch.float64)
        before = operator @ vector
        assert any(leaf() is not None for leaf in born)
        if how == "released":
            operator.release()
        else:
            del operator
        assert all(leaf() is None for leaf in born)
    finally:
        gc.enable()
    if how == "released":
        assert torch.equal(operator @ vector, before)


# Out of memory


class Limited(nn.Sequential):
    """Runs out of memory where it is to be differentiated for more than `limit` examples, or `failures` times more."""

    limit, failures, graphs = 100, 0, 0

    def __init__(self):
        super().__init__(*mlp())

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            Limited.graphs += 1
            Limited.failures -= 1
            if len(x) > Limited.limit or Limited.failures >= 0:
                raise torch.OutOfMemoryError("no memory left")
        return super().forward(x)


@pytest.fixture(autouse=True)
def unlimited(monkeypatch):
    """Limits set inside a test are gone after it."""
    for name in ("limit", "failures", "graphs"):
        monkeypatch.setattr(Limited, name, getattr(Limited, name))


def limited(sizes: tuple[int, int] = (8, 4)) -> LossSurface:
    """A surface of twelve examples in two batches."""
    torch.manual_seed(0)
    inputs, labels = torch.randn(12, 6, dtype=torch.float64), torch.arange(12) % 3
    loss_fn = nn.CrossEntropyLoss(weight=torch.tensor([0.2, 3.0, 1.0]))
    return LossSurface(Limited().double(), loss_fn, list(zip(inputs.split(sizes), labels.split(sizes), strict=True)))


def dense(operator) -> Tensor:
    return operator @ torch.eye(operator.size, dtype=operator.dtype)


@pytest.mark.parametrize(("limit", "parts"), [(4, 2), (3, 4), (2, 4)])
@pytest.mark.parametrize("kind", OPERATORS)
def test_batches_are_cut_until_they_fit(kind, limit, parts):
    surface = limited()
    whole = dense(kind(surface))
    Limited.limit = limit
    operator = kind(surface)
    torch.testing.assert_close(dense(operator), whole, rtol=1e-12, atol=1e-15)
    assert operator.note == f"out of memory: every batch is cut into {parts} parts"


@pytest.mark.parametrize("kind", OPERATORS)
def test_what_is_kept_goes_first(kind):
    surface = limited()
    operator = kind(surface)
    whole = operator @ surface.origin
    operator.release()
    Limited.failures, Limited.limit = 0, 8
    operator @ surface.origin
    operator._sum._kept.pop()  # the second graph has to be made again, and then there is no room for it
    Limited.failures = 1
    torch.testing.assert_close(operator @ surface.origin, whole, rtol=1e-12, atol=1e-15)
    assert operator.note == "out of memory: nothing is kept between products"
    before = Limited.graphs
    operator @ surface.origin
    assert Limited.graphs == before + 2


@pytest.mark.parametrize("kind", OPERATORS)
def test_where_nothing_is_kept_any_more_batches_are_cut(kind):
    surface = limited(sizes=(4, 8))
    whole = dense(kind(surface))
    Limited.limit = 4  # the first batch fits and is kept
    operator = kind(surface)
    torch.testing.assert_close(dense(operator), whole, rtol=1e-12, atol=1e-15)
    assert operator.note == "out of memory: every batch is cut into 2 parts"
    assert not operator._sum._kept


@pytest.mark.parametrize("kind", OPERATORS)
def test_where_one_example_does_not_fit_it_says_so(kind):
    surface = limited()
    Limited.limit = 0
    with pytest.raises(torch.OutOfMemoryError, match=r"even with every batch cut into 8 parts.*or on_oom='cpu'"):
        kind(surface) @ surface.origin


def test_or_the_cpu_takes_over():
    surface = limited()
    whole = dense(HessianOperator(surface))
    Limited.failures = 5  # where derivatives are judged, then at 8 examples, 4, 2 and 1: no batch can be cut any more
    operator = HessianOperator(surface, on_oom="cpu")
    torch.testing.assert_close(dense(operator), whole, rtol=1e-12, atol=1e-15)
    assert operator.note == "out of memory: the products are computed on the CPU"
    Limited.limit = 0
    operator.release()
    with pytest.raises(torch.OutOfMemoryError, match="does not fit into memory"):
        operator @ surface.origin


def test_on_oom_is_one_of_two():
    with pytest.raises(ValueError, match="on_oom must be 'error' or 'cpu', got 'fewer_probes'"):
        HessianOperator(limited(), on_oom="fewer_probes")
