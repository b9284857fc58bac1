"""Graphs hang on the values that their function took out of torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from loss_landscape.graphs.tracing import UntraceableError, specialized, traced

SPLITS = {
    "function": lambda values, places: torch.tensor_split(values, places),
    "method": lambda values, places: values.tensor_split(places),
    "keyword": lambda values, places: torch.tensor_split(values, tensor_indices_or_sections=places),
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_graph_that_splits_at_a_batchs_places_serves_no_other_places(name):
    def first(values: Tensor, places: Tensor) -> Tensor:
        return SPLITS[name](values, places)[0].sum()

    values, places = torch.arange(6.0), torch.tensor([2, 4])
    graph = specialized(first, (values, places), 1)
    assert graph.serves((values, places.clone()))
    assert not graph.serves((values, torch.tensor([3, 4])))
    assert graph.graph(values, places) == 1
    with pytest.raises(UntraceableError, match="goes through NumPy or a list"):
        traced(first, (values, places))
