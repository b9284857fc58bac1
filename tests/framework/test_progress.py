"""An epoch's means weigh examples, not batches, and do not depend on where a checkpoint fell."""

import torch

from taskshift import checkpoint
from taskshift.learners.learner import Step
from taskshift.progress import EpochSums
from taskshift.shifts.task import Task


def task():
    return Task(
        0,
        torch.arange(1),
        torch.arange(1),
        None,
        torch.nn.CrossEntropyLoss(),
        {"accuracy": lambda o, t: (o.argmax(1) == t).double()},
    )


def batches():
    rng = torch.Generator().manual_seed(0)
    for count in (32, 32, 5):
        outputs, targets = torch.randn(count, 4, generator=rng, dtype=torch.float64), torch.randint(4, (count,), generator=rng)
        yield outputs, targets


def test_a_small_last_batch_is_not_over_weighted():
    sums, kept = EpochSums(), []
    for outputs, targets in batches():
        sums.add(task(), Step(torch.nn.functional.cross_entropy(outputs, targets), outputs), targets)
        kept.append((outputs, targets))
    outputs, targets = (torch.cat(parts) for parts in zip(*kept, strict=True))
    means = sums.means()
    assert abs(means["loss"] - torch.nn.functional.cross_entropy(outputs, targets).item()) < 1e-12
    assert abs(means["accuracy"] - (outputs.argmax(1) == targets).double().mean().item()) < 1e-12


def test_saved_and_loaded_in_mid_epoch_it_has_the_same_bits(tmp_path):
    whole, cut = EpochSums(), EpochSums()
    for outputs, targets in batches():
        step = Step(torch.nn.functional.cross_entropy(outputs, targets).float(), outputs)
        whole.add(task(), step, targets)
        cut.add(task(), step, targets)
        checkpoint.save(tmp_path / "sums.pt", cut.state_dict())
        cut = EpochSums(**checkpoint.load(tmp_path / "sums.pt"))
    assert cut.means() == whole.means()
