"""Random numbers of steps: each number once, the same ones wherever a run goes on."""

from __future__ import annotations

import pytest
import torch

from taskshift.learners import draws as module
from taskshift.learners.draws import Draws, EveryStep, FreshRows, none_taken
from taskshift.learners.part import Context
from taskshift.randomness import seed_from

NET = {"w": torch.zeros(4, 3), "narrow": torch.zeros(2)}


def fresh(seed):
    """A net whose numbers tell from which seed and row they are."""
    rng = torch.Generator().manual_seed(seed % 2**31)
    return {name: torch.rand(tensor.shape, generator=rng) for name, tensor in NET.items()}


def draws_of(wanted, seed=0):
    return Draws(wanted, seed=seed, fresh=fresh, net=NET, device=torch.device("cpu"))


def row_by_number(parameter, number, *, part="part", seed=0):
    """What row number `number` has to be: rows of one fresh net after another."""
    block, row = divmod(number, len(NET[parameter]))
    return fresh(seed_from(seed, "fresh", part, block))[parameter][row]


@pytest.mark.parametrize("shape", [(), (3,), (400, 7)])
def test_every_step_has_numbers_of_its_own_wherever_it_is_asked(shape, monkeypatch):
    """Over the borders of blocks, whatever was asked before."""
    monkeypatch.setattr(module, "BLOCK", 8_000)
    wanted = {"part": {"noise": EveryStep(shape)}}
    one = draws_of(wanted)
    steps = range(600) if shape != (400, 7) else range(12)
    seen = [one.at(step, {})["part"]["noise"] for step in steps]
    assert all(sample.shape == shape for sample in seen)
    assert len({tuple(sample.flatten().tolist()) for sample in seen}) == len(seen), "no step shares another's"
    for step in reversed(steps[::7]):
        assert torch.equal(draws_of(wanted).at(step, {})["part"]["noise"], seen[step])


def test_parts_names_and_seeds_draw_differently_and_kinds_are_as_they_say():
    kinds = {"a": EveryStep((100,)), "b": EveryStep((100,)), "flat": EveryStep((100,), "uniform")}
    one, other = draws_of({"one": kinds, "two": kinds}), draws_of({"one": kinds}, seed=1)
    first = one.at(0, {})
    samples = [first["one"]["a"], first["one"]["b"], first["two"]["a"], other.at(0, {})["one"]["a"]]
    assert len({tuple(sample.tolist()) for sample in samples}) == 4
    normal = torch.cat([one.at(step, {})["one"]["a"] for step in range(200)]).double()
    assert abs(normal.mean()) < 4 / 20_000**0.5
    assert abs(normal.var() - 1) < 4 * (2 / 20_000) ** 0.5
    flat = torch.cat([one.at(step, {})["one"]["flat"] for step in range(200)]).double()
    assert 0 <= flat.min() < flat.max() < 1
    assert abs(flat.mean() - 0.5) < 4 * (1 / 12 / 20_000) ** 0.5


@pytest.mark.parametrize("parameter", NET)
@pytest.mark.parametrize("at_most", [1, 3, 4, 9])
def test_rows_come_one_after_another_whatever_a_step_uses(parameter, at_most):
    """Also more at a step than a net has, and none at many steps."""
    spec = {"rows": FreshRows(parameter, at_most)}
    draws, taken, count = draws_of({"part": spec}), none_taken(spec, torch.device("cpu")), 0
    rng = torch.Generator().manual_seed(0)
    for step in range(60):
        used = int(torch.randint(at_most + 1, (), generator=rng))
        context = Context({}, draws=draws.at(step, {"part": taken})["part"], taken=taken)
        rows = context.rows("rows", at_most)
        for offset in range(at_most):
            assert torch.equal(rows[offset], row_by_number(parameter, count + offset)), (step, offset)
        count += used
        taken = {"rows": taken["rows"] + used}
    assert count > 20


def test_a_run_that_goes_on_elsewhere_has_the_same_rows():
    spec = {"rows": FreshRows("w", 2)}
    for start in (0, 3, 4, 17):
        draws, taken = draws_of({"part": spec}), {"rows": torch.tensor(start)}
        context = Context({}, draws=draws.at(99, {"part": taken})["part"], taken=taken)
        assert torch.equal(context.rows("rows", 2)[1], row_by_number("w", start + 1))
    later, earlier = {"rows": torch.tensor(40)}, {"rows": torch.tensor(1)}
    draws = draws_of({"part": spec})
    draws.at(0, {"part": later})
    draws.forget()
    context = Context({}, draws=draws.at(0, {"part": earlier})["part"], taken=earlier)
    assert torch.equal(context.rows("rows", 1)[0], row_by_number("w", 1)), "another state was loaded"


@pytest.mark.parametrize("length", [1, 5, 8, 30])
def test_a_part_that_acts_now_and_then_has_its_rows_then(length):
    """It uses them after every eighth step alone, where the ring is as long as that needs, as a power of two."""
    spec = {"rows": FreshRows("w", 4, every=8)}
    draws, count = draws_of({"part": spec}), 0
    for first in range(0, 120, length):
        given = draws.ahead(first, length, {"part": {"rows": torch.tensor(count)}})["part"]
        assert len(given["rows"]) < 2 * 4 * (1 + -(-length // 8))
        for step in range(first, first + length):
            if (step + 1) % 8 == 0:
                context = Context({}, draws=given, taken={"rows": torch.tensor(count)})
                for offset, row in enumerate(context.rows("rows", 4)):
                    assert torch.equal(row, row_by_number("w", count + offset)), step
                count += 4 if step % 3 else 1


@pytest.mark.parametrize("length", [1, 5, 64, 300])
def test_a_part_that_says_how_rarely_it_uses_rows_has_a_short_ring(length):
    """It looks at the next row at every step, and uses one in eight steps, the first of them at once."""
    spec = {"rows": FreshRows("w", 1, rate=1 / 8)}
    draws, count = draws_of({"part": spec}), 0
    for first in range(0, 900, length):
        ring = draws.ahead(first, length, {"part": {"rows": torch.tensor(count)}})["part"]["rows"]
        assert len(ring) <= 2 * (length / 8 + 2 + 1 + 2 * len(NET["w"]))
        for step in range(first, first + length):
            [row] = Context({}, draws={"rows": ring}, taken={"rows": torch.tensor(count)}).rows("rows", 1)
            assert torch.equal(row, row_by_number("w", count)), step
            count += step % 8 == 0


def test_a_chunk_ahead_has_the_numbers_of_its_steps():
    """Chunks of any length, one after another, where each step takes some rows of the chunk's ring."""
    specs = {"noise": EveryStep((3,)), "rows": FreshRows("w", 2)}
    for length in (1, 4, 7):
        draws, alone, count = draws_of({"part": specs}), draws_of({"part": specs}), 0
        for first in range(0, 21, length):
            given = draws.ahead(first, length, {"part": {"rows": torch.tensor(count)}})["part"]
            assert [sample.shape for sample in given["noise"]] == [(3,)] * length
            for number in range(length):
                assert torch.equal(
                    given["noise"][number], alone.at(first + number, {"part": {"rows": torch.tensor(count)}})["part"]["noise"]
                )
                context = Context({}, draws=given, taken={"rows": torch.tensor(count)})
                assert torch.equal(context.rows("rows", 2)[0], row_by_number("w", count))
                count += 2 if number % 2 else 1
