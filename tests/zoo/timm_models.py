"""timm's families at small sizes."""

from __future__ import annotations

from functools import partial

import timm
import timm.models as tm
from torch import nn
from zoo.entry import CLASSES, Entry, images

of = partial(Entry, origin="timm", data=images(3, 32))
TINY = {"img_size": 32, "num_classes": CLASSES}
PATCHES = {**TINY, "patch_size": 8, "embed_dim": 32}


def _checkpointed() -> nn.Module:
    net = tm.VisionTransformer(**PATCHES, depth=2, num_heads=2)
    net.set_grad_checkpointing()
    return net


ENTRIES = [
    of(name="vision transformer, checkpointed", build=_checkpointed),
    of(name="deit, distilled", build=lambda: tm.VisionTransformerDistilled(**PATCHES, depth=2, num_heads=2)),
    of(name="mlp mixer", build=lambda: tm.MlpMixer(CLASSES, 32, patch_size=8, num_blocks=2, embed_dim=32)),
    of(
        name="gmlp",
        build=lambda: tm.MlpMixer(
            CLASSES,
            32,
            patch_size=8,
            num_blocks=2,
            embed_dim=32,
            block_layer=tm.mlp_mixer.SpatialGatingBlock,
            mlp_ratio=4,
            mlp_layer=timm.layers.GatedMlp,
        ),
    ),
    of(name="convmixer", build=lambda: tm.ConvMixer(16, 2, kernel_size=3, patch_size=4, num_classes=CLASSES)),
    of(name="cait", build=lambda: tm.Cait(**PATCHES, depth=2, num_heads=2, depth_token_only=1)),
    of(name="xcit", build=lambda: tm.Xcit(**PATCHES, depth=1, num_heads=2, cls_attn_layers=1)),
    of(
        name="convnext_v2",
        build=lambda: tm.ConvNeXt(
            num_classes=CLASSES, depths=(1, 1, 1, 1), dims=(8, 16, 16, 16), use_grn=True, ls_init_value=None
        ),
    ),
    of(
        name="poolformer",
        build=lambda: tm.MetaFormer(num_classes=CLASSES, depths=(1, 1), dims=(16, 32), token_mixers=tm.metaformer.Pooling),
    ),
    of(name="ghostnet_050", build=lambda: tm.create_model("ghostnet_050", num_classes=CLASSES)),
    of(name="mobilevit_xxs", build=lambda: tm.create_model("mobilevit_xxs", num_classes=CLASSES)),
    of(name="nfnet", build=lambda: tm.create_model("nf_resnet26", num_classes=CLASSES)),
    of(name="repvgg", build=lambda: tm.create_model("repvgg_a0", num_classes=CLASSES)),
    of(name="res2net", build=lambda: tm.create_model("res2net50_14w_8s", num_classes=CLASSES)),
    of(name="levit_128s", build=lambda: tm.create_model("levit_128s", num_classes=CLASSES), data=images(3, 224)),
]
