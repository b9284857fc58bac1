"""Models of transformers, from configs: with masks, fused attention and tied embeddings, by their Trainer's callback."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from loss_landscape import LossLandscapeWriter
from loss_landscape.callbacks.transformers_trainer import LabelCount, LandscapeCallback

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # transformers', about special tokens
]
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


def trained(model, data, folder, *callbacks, **options):
    options = {"learning_rate": 1e-3, "save_strategy": "no", **options}
    arguments = TrainingArguments(
        str(folder), num_train_epochs=3, per_device_train_batch_size=16, use_cpu=True, report_to=[], disable_tqdm=True,
        logging_strategy="epoch", eval_strategy="epoch", **options,
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


def without_labels_at(places, batch):
    labels = batch["labels"].clone()
    labels[places] = -100
    return {**batch, "labels": labels}


@pytest.mark.parametrize("kind", ["next words", "words of another text", "masked words", "one of several", "several classes"])
def test_a_batch_weighs_what_its_loss_divides_by(kind):
    """The weighted mean of two batches' losses is that of both together, whatever the model's loss is called."""
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    bert = BertConfig(vocab_size=SIZE, max_position_embeddings=16, **small)
    t5 = T5Config(vocab_size=SIZE, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
    tokens = torch.randint(3, SIZE, (7, LENGTH), generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": tokens, "labels": tokens.clone()}
    model: torch.nn.Module
    if kind == "next words":
        model, batch = language_model(), without_labels_at((slice(3), slice(6, None)), batch)
    elif kind == "words of another text":
        model, batch = T5ForConditionalGeneration(t5), without_labels_at((slice(3), slice(6, None)), batch)
    elif kind == "masked words":
        model, batch = BertForMaskedLM(bert), without_labels_at((slice(None), slice(2, None, 2)), batch)
    elif kind == "one of several":
        model = BertForMultipleChoice(bert)
        batch = {"input_ids": tokens.repeat(1, 2).view(7, 2, LENGTH), "labels": torch.tensor([0, 1, 1, 0, 1, 0, 0])}
    else:
        bert.num_labels, bert.problem_type = 3, "multi_label_classification"
        model, batch = BertForSequenceClassification(bert), {"input_ids": tokens, "labels": (tokens[:, :3] > 20).double()}
    model.double().eval()
    count, parts = LabelCount(model), [{name: part[rows] for name, part in batch.items()} for rows in (slice(2), slice(2, None))]
    weights = [count(part) for part in parts]
    with torch.no_grad():
        losses = [model(**part).loss for part in parts]
        both = sum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / sum(weights)
        torch.testing.assert_close(both, model(**batch).loss, rtol=1e-9, atol=0)


def test_a_batch_without_labels_is_one_sentence():
    with pytest.raises(ValueError, match="a batch has input_ids, start_positions and no labels"):
        LabelCount(classifier())({"input_ids": 0, "start_positions": 0})


class Fails(TrainerCallback):
    def on_step_end(self, args, state, control, **given):
        if state.global_step == 4:
            raise RuntimeError("out of luck")


def test_after_a_training_that_failed_the_folder_is_open_to_the_next(tmp_path):
    data, callback = sentences(40, causal=False), LandscapeCallback(tmp_path / "landscape", at_end=["hessian"])
    with pytest.raises(RuntimeError, match="out of luck"):
        trained(classifier(), data, tmp_path / "out", callback, Fails())
    trained(classifier(), data, tmp_path / "out", callback)
    with LossLandscapeWriter(tmp_path / "landscape") as writer:
        assert [one.epoch for one in writer.checkpoints()] == [1, 2, 3]
        assert len(writer.record().hessians) == 1


def test_the_best_net_is_measured_as_of_its_epoch(tmp_path):
    data, callback = sentences(40, causal=False), LandscapeCallback(tmp_path / "landscape", at_end=["hessian"])
    best = {"load_best_model_at_end": True, "save_strategy": "epoch", "greater_is_better": True}  # the first, as the loss falls
    net = trained(classifier(), data, tmp_path / "out", callback, **best)
    with LossLandscapeWriter(tmp_path / "landscape") as writer:
        (metrics,) = writer.record().hessians
        losses = {one.epoch: one.val_loss for one in writer.checkpoints()}
        (file,) = [one.file for one in writer.checkpoints() if one.epoch == metrics.epoch]
    assert metrics.epoch == max(losses, key=losses.get) < 3
    kept = torch.load(file)
    assert all(torch.equal(kept[name], p) for name, p in net.named_parameters())
