"""Many cells in one pass: tensors of different dimensions line up, and memory that is used again does no harm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from loss_landscape import LossSurface, evaluate_grid, random_directions
from loss_landscape.graphs.output_buffers import reused
from loss_landscape.surface.strategy import EvaluationStrategy

VECTORIZED, EAGER = EvaluationStrategy("vectorized", 4), EvaluationStrategy("eager", 4)
COORDINATES = torch.linspace(-1, 1, 14, dtype=torch.float64).reshape(7, 2)


class Shapes(nn.Module):
    """A scalar, a vector and a matrix that meet in sums, products and choices."""

    def __init__(self):
        super().__init__()
        self.scalar, self.vector = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.linspace(-1, 1, 4))
        self.matrix = nn.Parameter(torch.linspace(-2, 2, 12).reshape(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        mixed = torch.tanh(x @ self.matrix * self.scalar + self.vector)
        chosen = torch.where(mixed > self.scalar, mixed, self.vector / (2 + self.scalar))
        curved = x.unsqueeze(1) * self.vector[:3].sigmoid() - self.scalar  # [N, 1, 3]
        return torch.relu(chosen[:, :3] - curved.sum(dim=1)) * self.vector.exp()[:3]


@pytest.fixture
def surface() -> LossSurface:
    draw = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(5, 3, generator=draw, dtype=torch.float64), torch.randint(0, 3, (5,), generator=draw)) for _ in range(2)
    ]
    return LossSurface(Shapes().double(), nn.CrossEntropyLoss(), batches)


@pytest.mark.parametrize("rho", [None, 0.1], ids=["loss", "ascent"])
def test_tensors_of_any_dimensions_line_up(rho, surface):
    plane = surface.plane(random_directions(surface, 2, normalization="none", generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(
        plane.evaluate(COORDINATES, VECTORIZED, rho), plane.evaluate(COORDINATES, EAGER, rho), rtol=1e-12, atol=1e-12
    )


def test_what_was_found_stays_when_the_memory_is_used_again(surface):
    plane = surface.plane(random_directions(surface, 2, generator=torch.Generator().manual_seed(1)))
    first = plane.evaluate(COORDINATES, VECTORIZED)
    copy = first.clone()
    plane.evaluate(2 * COORDINATES, VECTORIZED)
    assert torch.equal(first, copy)


def test_results_of_one_form_share_their_memory():
    add = reused(torch.add)
    first = add(torch.ones(3), torch.ones(3))
    assert add(torch.ones(3), torch.full((3,), 2.0)) is first
    assert first.tolist() == [3, 3, 3]
    for others in ((torch.ones(2), torch.ones(2)), (torch.ones(3).double(), torch.ones(3)), (torch.ones(3), 4.0)):
        assert torch.equal(add(*others), torch.add(*others))
    assert add(torch.ones(3), 5.0).tolist() == [6, 6, 6]


def test_a_function_may_have_another_that_writes():
    clipped = reused(torch.relu, lambda source, out: torch.clamp_min(source, 0, out=out))
    first = clipped(torch.tensor([-1.0, 2.0]))
    assert clipped(torch.tensor([3.0, -4.0])) is first
    assert first.tolist() == [3, 0]


class ThroughAThinProduct(nn.Module):
    """What has few columns, thin enough to be made lying on a CPU, goes through another product, a view and a sum."""

    def __init__(self, columns: int):
        super().__init__()
        self.first, self.second = nn.Linear(3, columns), nn.Linear(columns, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        thin = self.first(torch.tanh(self.first(x)[:, :3]))
        paired = self.second(thin).view(-1, 2, 3)
        return torch.log_softmax(paired.sum(dim=1), dim=1) + thin.reshape(-1, 3).relu().reshape(len(x), -1)[:, :3]


@pytest.mark.parametrize("columns", [3, 15, 18])
@pytest.mark.parametrize("loss_fn", [nn.CrossEntropyLoss(), nn.NLLLoss()], ids=lambda f: type(f).__name__)
def test_a_product_with_few_columns_is_like_any_other(columns, loss_fn):
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    batch = torch.randn(5, 3, generator=draw, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])
    surface = LossSurface(ThroughAThinProduct(columns).double(), loss_fn, [batch])
    plane = surface.plane(random_directions(surface, 2, generator=draw))
    for rho in (None, 0.1):
        by_loop = plane.evaluate(COORDINATES, EAGER, rho)
        torch.testing.assert_close(plane.evaluate(COORDINATES, VECTORIZED, rho), by_loop, rtol=1e-12, atol=1e-12)


def test_an_operation_that_vmap_takes_one_by_one_says_nothing_on_the_terminal(capfd):
    targets, lengths = torch.tensor([[1, 2], [2, 1]]), (torch.tensor([5, 5]), torch.tensor([2, 2]))

    def letters(model: nn.Module, batch: Tensor) -> Tensor:
        return torch.nn.functional.ctc_loss(model(batch).log_softmax(2), targets, *lengths)

    batch = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    plane = LossSurface(nn.Linear(3, 4), batch_loss=letters, batches=[batch], batch_weight=len).plane([torch.ones(16)])
    cells = torch.tensor([[0.1], [0.2]])
    found = plane.evaluate(cells, EvaluationStrategy("vectorized", 4))
    torch.testing.assert_close(found, plane.plain_losses(cells), rtol=1e-5, atol=1e-6)
    assert "Warning" not in capfd.readouterr().err


class WritesIntoSlices(nn.Module):
    """What is computed is written into a slice of what is computed, between bounds of any sort, beside a mask in its form."""

    def __init__(self, start: int | None, end: int | None, step: int | None):
        super().__init__()
        self.linear, self.bounds = nn.Linear(3, 8), slice(start, end, step)

    def forward(self, x: Tensor) -> Tensor:
        made = self.linear(x).tanh()
        mask = made.new_zeros(made.shape)
        mask[:, self.bounds] = 0.5
        mask[-1:] += 1
        changed = made * mask
        changed[:, self.bounds] = made[:, self.bounds].square()
        changed[1:, :2] = self.linear.bias[:2]
        return changed[:, self.bounds].sum(1, keepdim=True) + changed * x.sum()


@pytest.mark.parametrize(
    "bounds",
    [
        (-4, -2, None),
        (0, -4, None),
        (-3, None, None),
        (5, None, None),
        (2, 99, None),
        (None, None, 3),
        (-100, 3, 2),
        (6, 2, None),
    ],
    ids=str,
)
def test_slices_are_written_into_between_bounds_of_any_sort(bounds):
    torch.manual_seed(0)
    batch = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 7, 4])
    surface = LossSurface(WritesIntoSlices(*bounds).double(), nn.CrossEntropyLoss(), [batch])
    plane = surface.plane(random_directions(surface, 2, generator=torch.Generator().manual_seed(1)))
    by_loop = plane.plain_losses(COORDINATES)
    torch.testing.assert_close(plane.evaluate(COORDINATES, VECTORIZED), by_loop, rtol=1e-12, atol=1e-12)


def test_an_operation_that_is_not_to_be_had_for_many_cells_is_done_cell_by_cell():
    torch.manual_seed(0)
    batch = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 7, 4])
    surface = LossSurface(WritesIntoSlices(2, 5, None).double(), nn.CrossEntropyLoss(), [batch])
    directions = random_directions(surface, 2, generator=torch.Generator().manual_seed(1))
    grid = evaluate_grid(surface, directions, 3, rho=0.1)  # derivatives by as_strided_scatter, for which torch has no rule
    cells = torch.cartesian_prod(*map(torch.from_numpy, grid.coordinates))
    by_loop = surface.plane(directions).plain_losses(cells, 0.1).reshape(3, 3)
    torch.testing.assert_close(torch.from_numpy(grid.losses), by_loop, rtol=1e-12, atol=1e-12)
    assert grid.info.evaluation.strategy == "traced"
    assert grid.info.evaluation.strategy_note.startswith("vectorized failed: ")
