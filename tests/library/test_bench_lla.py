"""`scripts/bench_lla.py`: its tables, its counts of operations, how it calls the other programs. Nothing is timed in earnest."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import bench_lla
from lla_benchmarks import costs, curvature, operations, peers, planes, report
from lla_benchmarks.lines import Agreement, Arithmetic, Case, Findings, Line, Measured, Peer, Table, measure, same_losses
from lla_benchmarks.machine import machine, matmul_rates
from lla_benchmarks.nets import CONVNET, MLP, Problem, next_task, trained
from lla_benchmarks.sizes import quick

from loss_landscape import random_directions, sam_sharpness

CPU = torch.device("cpu")
RATES = {torch.float32: 1e9, torch.bfloat16: 4e9}
SAME = Agreement(1e-7, 1e-4, "of 1 + |loss|", "a remark of the check")


def a_line(**changes) -> Line:
    given = {
        "work": "adding",
        "peer": Peer("an abacus"),
        "ours": lambda number: number,
        "theirs": lambda number: number,
        "check": lambda: SAME,
        "arithmetic": lambda: Arithmetic(2e8, 6e8),
    }
    return Line(**(given | changes))


def a_measurement(**changes) -> Measured:
    given = {
        "line": a_line(wanted=4.0),
        "agreement": SAME,
        "arithmetic": Arithmetic(2e8, 6e8),
        "ours": [0.5, 1.0, 0.25],
        "theirs": [2.0, 3.0, 2.5],
    }
    return Measured(**(given | changes))


@pytest.fixture(scope="module")
def problem() -> Problem:
    """A small net of the shape that the MLP has: the layer that sees the inputs is its first child."""
    draw = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    return Problem(net.eval(), torch.randn(9, 12, generator=draw), torch.randint(0, 3, (9,), generator=draw))


# -- the tables -------------------------------------------------------------------------------------------------


def test_ratios_limits_and_shares():
    measured = a_measurement()
    assert measured.ratios == [4.0, 3.0, 10.0]
    assert measured.limit_by_operations == 3.0
    assert measured.limit_by_rate(RATES) == 12.5
    assert measured.shares(RATES) == (0.4, 0.24)
    halves = a_measurement(arithmetic=Arithmetic(2e8, 6e8, torch.bfloat16))
    assert halves.limit_by_rate(RATES) == 50
    assert halves.shares(RATES) == (0.1, 0.24)


def test_a_comparison_in_words():
    assert report.comparison(a_measurement(), RATES) == (
        "adding",
        "an abacus",
        "0.500 s (0.250 – 1.000)",
        "2.500 s (2.000 – 3.000)",
        "4.00 (3.00 – 10.00)",
        "4",
        "3.0 [12.5]",
        "40%, 24%",
    )
    assert report.comparison(a_measurement(line=a_line(wanted=4.1)), RATES)[5] == "4.1, missed"
    assert report.comparison(a_measurement(line=a_line()), RATES)[5] == "–"


def test_a_ratio_above_the_machine_is_pointed_at():
    impossible = a_measurement(arithmetic=Arithmetic(6e8, 6e8), ours=[0.5, 0.5, 0.5])
    assert report.comparison(impossible, RATES)[4] == "5.00 (4.00 – 6.00) **above its limit**"


def test_the_page_has_whole_tables():
    table = Table("Memory", ("net", "peak"), [("mlp", "3 MB"), ("|x|", "4 MB")], "Of the process.")
    findings = Findings([a_measurement(remark="of all rounds")], [table], ["adding: nothing is installed."])
    page = report.document(findings, {"processor": "a small one"}, RATES, "python scripts/bench_lla.py", "2025-11-23")
    tables = [part for part in page.split("\n\n") if part.startswith("|")]
    assert [len(part.splitlines()) for part in tables] == [4, 3, 3, 4]
    for part in tables:
        assert len({line.replace("\\|", "").count("|") for line in part.splitlines()}) == 1
    assert "| matrix products | 1 GFLOP/s in float32, 4 GFLOP/s in bfloat16 |" in page
    assert "| yes: 1e-07 of 1 + \\|loss\\|, 0.0001 allowed; a remark of the check | of all rounds |" in page
    assert "## Memory" in page
    assert "- adding: nothing is installed." in page


def test_the_machine_is_told():
    assert "cores" in machine(CPU)["processor"]
    assert set(matmul_rates(CPU, 8)) == {torch.float32, torch.bfloat16}


def test_a_saving_tells_whether_it_kept_its_word():
    assert planes.Saving("mlp", 30, 500, 1681, 2.5, 0.004).row() == ("mlp", "30", "500 of 1681", "3.36", "2.50", "0.004", "yes")
    assert planes.Saving("mlp", 30, 500, 1681, 2.5, 0.02).row()[-1] == "no"


# -- measuring --------------------------------------------------------------------------------------------------


def test_programs_are_checked_then_timed_in_turn():
    calls: list[tuple[str, int]] = []

    def program(name: str):
        return lambda number: calls.append((name, number)) or name

    def check() -> Agreement:
        calls.append(("check", -1))
        return SAME

    theirs, lines = program("theirs"), []
    for name in ("one", "two"):
        remark = lambda ours, theirs: f"{ours} against {theirs}"  # noqa: E731
        lines.append(a_line(ours=program(name), theirs=theirs, check=check, remark=remark))
    measured, left_out = measure(Case(lines, 2), CPU)
    in_turn = [(name, number) for number in (0, 1) for name in ("theirs", "one", "two")]
    assert calls == [("check", -1), ("check", -1), *in_turn]
    assert [one.remark for one in measured] == [f"{[name] * 2} against {['theirs'] * 2}" for name in ("one", "two")]
    assert all(len(one.ours) == len(one.theirs) == 2 for one in measured)
    assert left_out == []


def test_a_peer_that_is_not_installed_is_left_out():
    absent = a_line(peer=Peer("a ghost", "module_that_nobody_has"), check=lambda: pytest.fail("checked"))
    measured, left_out = measure(Case([absent, a_line()], 1), CPU)
    assert [one.line.peer.name for one in measured] == ["an abacus"]
    assert left_out == ["adding: a ghost is not installed (extra `bench`)."]


def test_numbers_that_differ_or_are_no_numbers_do_not_hold():
    ours = np.array([1.0, 10.0])
    assert same_losses(ours, np.array([1.0, 10.001]), 1e-4).difference == pytest.approx(0.001 / 11.001)
    assert same_losses(ours, np.array([1.0, 10.001]), 1e-4).holds
    assert not same_losses(ours, np.array([1.0, 10.01]), 1e-4).holds
    assert not same_losses(ours, np.array([1.0, np.nan]), 1e-4).holds


# -- operations -------------------------------------------------------------------------------------------------


def test_operations_of_a_forward_pass_and_a_cell(problem):
    forward = 2 * 9 * (12 * 5 + 5 * 4 + 4 * 3)
    assert operations.forward(problem) == forward
    assert operations.affine_cell(problem, 2) == forward - 2 * 9 * 12 * 5 + 2 * 2 * 9 * 5


def test_operations_of_a_sam_cell(problem):
    rest = 2 * 9 * (5 * 4 + 4 * 3)
    forwards, backward = 2 * rest, 2 * rest  # the backward pass: each later layer's weights and inputs
    assert operations.gram_sam_cell(problem, 2) == forwards + backward + 2 * 9 * 9 * 5 + 2 * (2 * 2 * 9 * 5)


def test_operations_of_a_hessian_product_are_those_of_a_kept_graph(problem):
    parameters = list(problem.net.parameters())
    loss = nn.functional.cross_entropy(problem.net(problem.inputs), problem.targets)
    gradient = torch.autograd.grad(loss, parameters, create_graph=True)
    vector = [torch.ones_like(parameter) for parameter in parameters]
    counted = operations.counted(lambda: torch.autograd.grad(gradient, parameters, vector))
    assert operations.hessian_product(problem) == counted


# -- the other programs -----------------------------------------------------------------------------------------


def plane_of(problem: Problem, side: int) -> tuple[list[torch.Tensor], np.ndarray]:
    """Two directions, and the losses of their grid over (−1, 1) by one forward pass a point."""
    surface = problem.surface()
    directions = list(random_directions(surface, 2))
    axis = torch.linspace(-1, 1, side)
    points = [first * directions[0] + second * directions[1] for first in axis for second in axis]
    return directions, surface.losses(displacements=torch.stack(points)).reshape(side, side).numpy()


def test_the_plain_loop_gives_the_losses_of_the_grid(problem):
    directions, losses = plane_of(problem, 3)
    np.testing.assert_allclose(peers.PlainLoop(problem, directions).plane(3), losses, rtol=1e-5)


def test_the_plain_loop_ascends_as_sam_does(problem):
    directions, losses = plane_of(problem, 3)
    rise = peers.PlainLoop(problem, directions).sam_plane(3, 0.3)[1, 1] - losses[1, 1]
    assert rise == pytest.approx(sam_sharpness(problem.surface(), 0.3), rel=1e-3)


def test_loss_landscapes_walks_our_grid_once_it_is_put_in_place(problem):
    pytest.importorskip("loss_landscapes")
    directions, losses = plane_of(problem, 5)
    walked = peers.interpolated_plane(problem, directions, 5)
    placed = peers.placed(walked)
    seen = np.isfinite(placed)
    assert seen.sum() == 22
    np.testing.assert_allclose(placed[seen], losses[seen], rtol=1e-4)
    assert np.abs(walked[0::2] - losses[0::2]).max() > 1e-3
    assert peers.random_plane(problem, 3).shape == (3, 3)


@pytest.mark.parametrize(
    ("module", "make"),
    [
        ("pyhessian", peers.pyhessian_product),
        ("hessian_eigenthings", peers.eigenthings_product),
        ("curvlinops", peers.curvlinops_product),
    ],
)
@pytest.mark.filterwarnings("ignore:Using backward")
def test_products_of_peers_are_those_of_the_dense_hessian(problem, module, make):
    pytest.importorskip(module)
    hessian = dense_hessian(problem)
    vector = torch.randn(len(hessian), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(make(problem)(vector), (hessian @ vector.double()).float(), rtol=1e-3, atol=1e-5)


def dense_hessian(problem: Problem) -> torch.Tensor:
    """[P, P], float64."""
    names = [name for name, _ in problem.net.named_parameters()]
    point = nn.utils.parameters_to_vector(problem.net.parameters()).detach().double()
    shapes = [parameter.shape for parameter in problem.net.parameters()]

    def loss(vector: torch.Tensor) -> torch.Tensor:
        parts = vector.split([shape.numel() for shape in shapes])
        parameters = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        outputs = torch.func.functional_call(problem.net, parameters, (problem.inputs.double(),))
        return nn.functional.cross_entropy(outputs, problem.targets)

    return torch.func.hessian(loss)(point)


def test_hessian_eigenthings_gets_the_fewest_steps_that_do(problem):
    peer = pytest.importorskip("hessian_eigenthings")
    exact = torch.linalg.eigvalsh(dense_hessian(problem)).numpy()
    steps = peers.eigenthings_steps(problem, 2, 1, 1e-3, 40)
    found = peers.eigenthings_ends(problem, steps, 2, 1)
    np.testing.assert_allclose(found, [exact[-1], exact[-2], exact[0]], atol=1e-3 * exact[-1])
    operator = peers.eigenthings_operator(problem)
    for which, count, enough in (("LA", 2, steps[0]), ("SA", 1, steps[1])):
        one_less, just = (
            peer.lanczos(operator, k=count, max_iter=many, which=which, reorthogonalize=True, seed=0).residuals
            for many in (enough - 1, enough)
        )
        assert bool((just <= 1e-3 * exact[-1] * 1.01).all())
        assert bool((one_less > 1e-3 * exact[-1] * 0.99).any())


def test_ghosts_are_counted_a_probe_at_a_time():
    nodes = torch.tensor([[1.0, 2.0, 2.0 + 1e-7, -3.0], [2.0, 1.0, torch.nan, torch.nan]], dtype=torch.float64)
    assert curvature.num_ghosts(nodes) == 1
    assert curvature.num_ghosts(nodes[1:]) == 0


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize(
    "build", [planes.plane_mlp, pytest.param(curvature.density, marks=pytest.mark.slow)], ids=lambda build: build.__name__
)
def test_cases_give_the_same_numbers_as_their_peers(build):
    measured, left_out = measure(build(quick(CPU, 1)), CPU)
    if not measured:
        pytest.skip(" ".join(left_out))
    assert all(one.agreement.holds for one in measured)
    assert all(one.limit_by_operations >= 1 for one in measured)


def test_a_plane_tells_how_it_was_evaluated():
    plane = planes.OurPlane(trained(MLP, 8, 2, CPU), 21)
    said = plane.remark([plane()], [])
    assert re.fullmatch(
        r"strategy `vectorized`, \d+ cells at a time; in it: the check of [34] cells against float64, \S+ s, \d+%", said
    ), said


# -- nets -------------------------------------------------------------------------------------------------------


def test_nets_learn_their_teacher_and_depend_on_the_seed_alone():
    before = torch.get_rng_state()
    learnt = trained(MLP, 256, 40, CPU)
    assert learnt.surface().loss() < 0.8 * trained(MLP, 256, 0, CPU).surface().loss()
    again = trained.__wrapped__(MLP, 256, 40, CPU)
    assert torch.equal(learnt.inputs, again.inputs)
    assert torch.equal(learnt.net[0].weight, again.net[0].weight)
    assert torch.equal(before, torch.get_rng_state())


def test_the_next_task_has_other_data_and_leaves_the_net_as_it_was():
    first = trained(CONVNET, 8, 2, CPU)
    weights = first.net[0].weight.clone()
    second = next_task(first, CONVNET, 2, seed=0)
    assert not torch.equal(first.inputs, second.inputs)
    assert not torch.equal(weights, second.net[0].weight)
    assert torch.equal(weights, first.net[0].weight)


# -- the command ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.skipif(not costs.STATUS.exists(), reason="the peak is read from /proc")
def test_memory_of_a_plane_is_the_growth_of_the_peak():
    before = costs.peak(CPU)
    held = torch.ones(costs.peak(CPU) // 4 + 2**24)  # as many bytes as the peak, and 64 MB
    assert costs.peak(CPU) >= max(before, held.nbytes)
    assert 0 <= costs.extra_megabytes(MLP, 3, 4, CPU) < costs.BUDGET_MB


def test_the_command_measures_prints_and_saves(tmp_path, monkeypatch, capsys):
    table = Table("Growth", ("cells", "seconds"), [("9", "0.1")])
    cases = {"toy": lambda sizes: Case([a_line()], sizes.num_rounds), "growth": lambda sizes: table}
    monkeypatch.setattr(bench_lla, "CASES", cases)
    page = tmp_path / "benchmarks.md"
    words = ["--only", "toy,growth", "--repeats", "3", "--quick", "--save", str(page)]
    assert bench_lla.main(words) == 0
    said = capsys.readouterr().out
    assert "adding, against an abacus: " in said
    assert "Growth\n    cells  seconds\n    9      0.1" in said
    assert f"Written by `python scripts/bench_lla.py {' '.join(words)}`" in page.read_text()
    assert "| adding | an abacus |" in page.read_text()


def test_the_command_fails_where_the_numbers_differ(monkeypatch, capsys):
    wrong = a_line(check=lambda: Agreement(0.5, 1e-4, "of 1 + |loss|"))
    monkeypatch.setattr(bench_lla, "CASES", {"toy": lambda sizes: Case([wrong], 1)})
    assert bench_lla.main(["--only", "toy", "--quick"]) == 1
    assert "**no**: 0.5 of 1 + |loss|, 0.0001 allowed" in capsys.readouterr().out


def test_the_command_refuses_what_it_does_not_know(capsys):
    with pytest.raises(SystemExit):
        bench_lla.parse(["--only", "plane_mlp,planes"])
    assert "there is no case planes; there are plane_mlp, plane_convnet" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bench_lla.parse(["--repeats", "0"])
    assert "expected 1 or more, got 0" in capsys.readouterr().err


def test_the_section_on_training_is_written_anew_and_outlives_the_page(tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text("# Planes\n\n| a |\n")
    assert report.training_section(page) == ""
    report.put_training_section(page, "first\n")
    report.put_training_section(page, "second\n\n")
    assert page.read_text() == "# Planes\n\n| a |\n\n## Steps of training\n\nsecond\n"
    page.write_text("# Planes, anew\n" + report.training_section(page))
    assert page.read_text() == "# Planes, anew\n\n## Steps of training\n\nsecond\n"
