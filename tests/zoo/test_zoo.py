"""Models that nobody wrote for this project: the library's numbers on each of them against plain loops."""

import random

import numpy as np
import pytest
import torch

pytest.importorskip("timm")
pytest.importorskip("transformers")

from zoo.catalogue import ENTRIES
from zoo.checks import (
    Specimen,
    UsersThings,
    gauss_newton_products,
    gradient_at_a_displacement,
    hessian_products,
    plane_cells,
)
from zoo.entry import Entry

IN_TIER_2 = {
    "densenet, checkpointed",
    "swin",
    "vision transformer",
    "bert, padded",
    "llama, padded",
    "gpt2, tied, next words",
    "mlp mixer",
    "lstm on packed sentences",
    "text convnet, padding_idx",
    "bags of words, mean",
    "low-rank change, merged on eval",
    "early exit",
}


def tier(entry: Entry) -> pytest.MarkDecorator:
    return pytest.mark.slow if entry.name in IN_TIER_2 else pytest.mark.exhaustive


pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.name, marks=tier(entry)) for entry in ENTRIES])
def test_every_number_is_the_plain_loops_and_nothing_of_the_users_changed(entry):
    specimen = Specimen(entry)
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    things = UsersThings(specimen.net, specimen.batches)
    compared = [*plane_cells(specimen), *gradient_at_a_displacement(specimen)]
    compared += [*hessian_products(specimen), *gauss_newton_products(specimen)]
    assert things.changed() == []
    assert [str(one) for one in compared if not one.error <= one.allowed] == []
    assert entry.told in specimen.hessian.note
    info = specimen.grid.info.evaluation
    assert (info.strategy == "eager") == bool(entry.eager), info.strategy_note


def test_the_names_are_the_catalogues():
    names = [entry.name for entry in ENTRIES]
    assert len(names) == len(set(names)) >= 60
    assert set(names) >= IN_TIER_2
    assert len(IN_TIER_2) == 12
