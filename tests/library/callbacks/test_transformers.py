"""Models of transformers, from configs: with masks, fused attention and tied embeddings, by their Trainer's callback."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
)

from loss_landscape import LossLandscapeWriter
from loss_landscape.callbacks.transformers_trainer import LandscapeCallback

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers', about special tokens
SIZE, LENGTH = 40, 12


def classifier():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return BertForSequenceClassification(BertConfig(vocab_size=SIZE, max_position_embeddings=16, **sizes))


def language_model():
    torch.manual_seed(0)
    tokens = {"bos_token_id": 1, "eos_token_id": 2}
    return GPT2LMHeadModel(GPT2Config(vocab_size=SIZE, n_positions=16, n_embd=16, n_layer=2, n_head=2, **tokens))


def sentences(count: int, *, causal: bool) -> list[dict[str, torch.Tensor]]:
    """Of 5 to 12 tokens, padded; as labels the tokens themselves, or whether the first is of the second half."""
    draw, found = torch.Generator().manual_seed(0), []
    for _ in range(count):
        tokens = torch.randint(3, SIZE, (LENGTH,), generator=draw)
        mask = (torch.arange(LENGTH) < torch.randint(5, LENGTH + 1, (), generator=draw)).long()
        labels = torch.where(mask.bool(), tokens, -100) if causal else (tokens[0] > SIZE // 2).long()
        found.append({"input_ids": tokens * mask, "attention_mask": mask, "labels": labels})
    return found


def mean_loss(model, data) -> float:
    """Over all labels at once, written out, in float64."""
    batch = torch.utils.data.default_collate(data)
    with torch.no_grad():
        logits = model.double().eval()(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    model.float()
    labels = batch["labels"]
    if labels.dim() == 2:
        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return F.cross_entropy(logits, labels, ignore_index=-100).item()


def trained(model, data, folder, *callbacks):
    arguments = TrainingArguments(
        str(folder), num_train_epochs=3, per_device_train_batch_size=16, learning_rate=1e-3, use_cpu=True, report_to=[],
        disable_tqdm=True, logging_strategy="epoch", eval_strategy="epoch", save_strategy="no",
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=data, eval_dataset=data, callbacks=list(callbacks)).train()
    return model


@pytest.mark.parametrize("causal", [False, True], ids=["classifier", "language model"])
def test_a_training_is_recorded_and_goes_on_as_without(tmp_path, causal):
    data = sentences(40, causal=causal)  # 40 leave a last batch of 8, with other counts of tokens
    make = language_model if causal else classifier
    alone = trained(make(), data, tmp_path / "alone")
    with LossLandscapeWriter(tmp_path / "landscape") as writer:
        net = trained(make(), data, tmp_path / "out", LandscapeCallback(writer, at_end=["hessian"]))
        for name, tensor in alone.state_dict().items():
            assert torch.equal(tensor, net.state_dict()[name]), name
        checkpoints = writer.checkpoints()
        plane = writer.sample_landscape(
            net, torch.utils.data.DataLoader(data, 16), custom_loss_fn=lambda model, batch: model(**batch).loss,
            batch_weight=lambda batch: float((batch["labels"][..., 1:] if causal else batch["labels"]).ne(-100).sum()),
            grid_size=3, range_scale=0.5,
        )  # fmt: skip
        directions = writer.get_directions()
        metrics = writer.record().hessians[0]
    assert [one.epoch for one in checkpoints] == [1, 2, 3]
    assert all(one.train_loss is not None and one.val_loss is not None for one in checkpoints)
    assert checkpoints[-1].train_loss < checkpoints[0].train_loss
    assert [one.learning_rate for one in checkpoints] == pytest.approx([7 / 9e3, 4 / 9e3, 1 / 9e3])  # falls to 0 over 9 steps
    assert all(metrics.converged)

    origin = {name: tensor.clone() for name, tensor in net.named_parameters()}
    for row, column in ((0, 0), (1, 1), (2, 0)):
        step = directions[0] * plane["X"][row, column] + directions[1] * plane["Y"][row, column]
        at = 0
        for name, tensor in net.named_parameters():
            tensor.data = origin[name] + step[at : at + tensor.numel()].view_as(tensor)
            at += tensor.numel()
        assert plane["loss_grid_2d"][row, column] == pytest.approx(mean_loss(net, data), rel=1e-6)


def test_what_the_callback_measures_is_the_mean_over_labels(tmp_path):
    """A batch of a language model weighs as many labels as are predicted: the first of each sequence is nobody's target."""
    data = sentences(40, causal=True)
    with LossLandscapeWriter(tmp_path / "landscape") as writer:
        callback = LandscapeCallback(writer, at_end=["1d"], data_loader=torch.utils.data.DataLoader(data, 16))
        net = trained(language_model(), data, tmp_path / "out", callback)
        found = writer.record().grids["1d"].info.baseline_loss
    assert found == pytest.approx(mean_loss(net, data), rel=1e-6)
