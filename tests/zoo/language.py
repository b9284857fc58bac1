"""The families of transformers from configs of a few thousand parameters, with padded sentences and without."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from zoo.entry import CLASSES, NOT_THE_SLOPE, Entry, labels

of = partial(Entry, origin="transformers")
WORDS = 60
HEAD = {"num_labels": CLASSES, "pad_token_id": 0}
SMALL = {"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
ENCODER = {**SMALL, **HEAD, "max_position_embeddings": 40}
DECODER = {**ENCODER, "num_key_value_heads": 1, "use_cache": False}


def sentences(length: int, *, padded: bool) -> Callable[[torch.Generator], list[Any]]:
    """Ids and labels; padded, with a mask over what is no word."""

    def data(generator: torch.Generator) -> list[Any]:
        made = []
        for count in (3, 2):
            ids = torch.randint(1, WORDS, (count, length), generator=generator)
            inputs = {"input_ids": ids}
            if padded:
                lengths = torch.randint(length // 2, length, (count,), generator=generator)
                mask = (torch.arange(length) < lengths[:, None]).long()
                inputs = {"input_ids": ids * mask, "attention_mask": mask}
            made.append((inputs, labels(count, generator)))
        return made

    return data


def texts(length: int = 12, *, padding: int | None = None) -> Callable[[torch.Generator], list[Any]]:
    """Ids whose next ones are the targets; with `padding`, the last batch's second half is that."""

    def data(generator: torch.Generator) -> list[Any]:
        made = []
        for count in (3, 2):
            ids = torch.randint(3, WORDS, (count, length), generator=generator)
            made.append(({"input_ids": ids}, ids))
        if padding is not None:
            ids[:, length // 2 :] = padding
        return made

    return data


def pictures(size: int) -> Callable[[torch.Generator], list[Any]]:
    """Images by the name that these models call them."""

    def data(generator: torch.Generator) -> list[Any]:
        def batch(count: int) -> Any:
            return {"pixel_values": torch.randn(count, 3, size, size, generator=generator)}, labels(count, generator)

        return [batch(2), batch(1)]

    return data


def by_logits(outputs: Any, targets: Tensor) -> Tensor:
    """Cross entropy of an output's `logits`."""
    return F.cross_entropy(outputs.logits, targets)


def of_next_words(outputs: Any, ids: Tensor) -> Tensor:
    """Cross entropy of each next word."""
    return F.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def model(kind: str, task: str, **settings: Any) -> Callable[[], nn.Module]:
    """A model of `kind` with the head for a `task`, from a config."""

    def build() -> nn.Module:
        config = getattr(transformers, f"{kind}Config")(**settings)
        return getattr(transformers, f"{kind}For{task}")(config)

    return build


classifier = partial(model, task="SequenceClassification")


def speech(generator: torch.Generator) -> list[Any]:
    """Waves and the letters said in them."""
    return [(torch.randn(2, 800, generator=generator), torch.randint(1, 8, (2, 3), generator=generator))]


def of_letters(net: nn.Module, batch: Any) -> Tensor:
    """Connectionist temporal classification."""
    return net(batch[0], labels=batch[1]).loss


def _translated(net: nn.Module, batch: Any) -> Tensor:
    return net(**batch[0], labels=batch[1]).loss


DISTILBERT = {"vocab_size": WORDS, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "max_position_embeddings": 40}
GPT2 = {"vocab_size": WORDS, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 40, "use_cache": False, "bos_token_id": 1}
T5 = {"vocab_size": WORDS, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "use_cache": False}
BART = {
    "vocab_size": WORDS,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 40,
    "use_cache": False,
}
OPT = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "ffn_dim": 48,
    "max_position_embeddings": 40,
    "word_embed_proj_dim": 32,
    "use_cache": False,
}
WAV2VEC2 = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": (16, 16),
    "conv_kernel": (8, 4),
    "conv_stride": (4, 4),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 2,
    "vocab_size": 8,
    "ctc_loss_reduction": "mean",
}
PICTURE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "num_labels": CLASSES}

plain, padded = sentences(16, padded=False), sentences(16, padded=True)

ENTRIES = [
    of(name="bert", build=classifier("Bert", **ENCODER), data=plain, loss=by_logits),
    of(name="bert, padded", build=classifier("Bert", **ENCODER), data=padded, loss=by_logits),
    of(name="distilbert", build=classifier("DistilBert", **DISTILBERT, **HEAD), data=plain, loss=by_logits),
    of(name="distilbert, padded", build=classifier("DistilBert", **DISTILBERT, **HEAD), data=padded, loss=by_logits),
    of(name="roberta, padded", build=classifier("Roberta", **ENCODER), data=padded, loss=by_logits),
    of(name="albert, padded", build=classifier("Albert", **ENCODER, embedding_size=16), data=padded, loss=by_logits),
    of(name="electra, padded", build=classifier("Electra", **ENCODER, embedding_size=16), data=padded, loss=by_logits),
    of(name="deberta_v2, padded", build=classifier("DebertaV2", **ENCODER, type_vocab_size=0), data=padded, loss=by_logits),
    of(name="llama", build=classifier("Llama", **DECODER), data=plain, loss=by_logits, single_inside=True),
    of(name="llama, padded", build=classifier("Llama", **DECODER), data=padded, loss=by_logits, single_inside=True),
    of(name="mistral, padded", build=classifier("Mistral", **DECODER), data=padded, loss=by_logits, single_inside=True),
    of(name="qwen2, padded", build=classifier("Qwen2", **DECODER), data=padded, loss=by_logits, single_inside=True),
    of(
        name="llama, next words",
        build=model("Llama", "CausalLM", **DECODER),
        data=texts(),
        loss=of_next_words,
        single_inside=True,
    ),
    of(
        name="mixtral, 4 experts",
        eager="which words an expert is given hangs on the parameters",
        build=model("Mixtral", "CausalLM", **DECODER, num_local_experts=4, num_experts_per_tok=2, experts_implementation="eager"),
        data=texts(),
        loss=of_next_words,
        single_inside=True,
    ),
    of(
        name="gpt2, tied, next words",
        build=lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2)),
        data=texts(),
        loss=of_next_words,
    ),
    of(
        name="gpt_neox, next words",
        build=model("GPTNeoX", "CausalLM", **ENCODER, use_cache=False),
        data=texts(),
        loss=of_next_words,
    ),
    of(name="opt, next words", build=model("OPT", "CausalLM", **OPT), data=texts(), loss=of_next_words),
    of(
        name="opt, tied, padded next words",
        build=model("OPT", "CausalLM", **OPT),
        data=texts(padding=1),
        loss=of_next_words,
        told=NOT_THE_SLOPE,
    ),
    of(
        name="bloom, next words",
        build=model("Bloom", "CausalLM", vocab_size=WORDS, hidden_size=32, n_layer=2, n_head=2, use_cache=False),
        data=texts(),
        loss=of_next_words,
    ),
    of(
        name="t5",
        build=lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**T5, decoder_start_token_id=0)),
        data=texts(),
        loss=_translated,
        of_the_net=True,
        single_inside=True,
    ),
    of(
        name="bart",
        build=lambda: transformers.BartForConditionalGeneration(transformers.BartConfig(**BART)),
        data=texts(),
        loss=_translated,
        of_the_net=True,
    ),
    of(
        name="bart, padded",
        build=lambda: transformers.BartForConditionalGeneration(transformers.BartConfig(**BART)),
        data=texts(padding=1),
        loss=_translated,
        of_the_net=True,
        told=NOT_THE_SLOPE,
    ),
    of(
        name="vit",
        build=model("ViT", "ImageClassification", **PICTURE, image_size=32, patch_size=8),
        data=pictures(32),
        loss=by_logits,
    ),
    of(
        name="beit",
        build=model("Beit", "ImageClassification", **PICTURE, image_size=32, patch_size=8),
        data=pictures(32),
        loss=by_logits,
    ),
    of(
        name="segformer",
        build=model(
            "Segformer",
            "ImageClassification",
            hidden_sizes=[8, 16],
            depths=[1, 1],
            num_attention_heads=[1, 2],
            num_encoder_blocks=2,
            sr_ratios=[2, 1],
            patch_sizes=[7, 3],
            strides=[4, 2],
            mlp_ratios=[2, 2],
            num_labels=CLASSES,
        ),
        data=pictures(32),
        loss=by_logits,
    ),
    of(
        name="wav2vec2, ctc",
        build=model("Wav2Vec2", "CTC", **WAV2VEC2),
        data=speech,
        loss=of_letters,
        of_the_net=True,
        single_inside=True,
    ),
    of(
        name="mamba, next words",
        build=model("Mamba", "CausalLM", vocab_size=WORDS, hidden_size=16, state_size=4, num_hidden_layers=1, use_cache=False),
        data=texts(8),
        loss=of_next_words,
        single_inside=True,
    ),
]
