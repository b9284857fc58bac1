"""torchvision's families at small sizes."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import convnext, densenet, resnet, segmentation, swin_transformer
from zoo.entry import CLASSES, Entry, images

tv = torchvision.models
of = partial(Entry, origin="torchvision")


def _segmented(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs["out"].mean((2, 3)), targets)


def _densenet(*, memory_efficient: bool) -> densenet.DenseNet:
    return densenet.DenseNet(8, (2, 2, 2), 16, num_classes=CLASSES, memory_efficient=memory_efficient)


def _swin(block) -> swin_transformer.SwinTransformer:
    settings = {"patch_size": [4, 4], "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2], "window_size": [4, 4]}
    kinds = (
        {"block": block}
        if block is swin_transformer.SwinTransformerBlock
        else {"block": block, "downsample_layer": swin_transformer.PatchMergingV2}
    )
    return swin_transformer.SwinTransformer(**settings, num_classes=CLASSES, **kinds)


def _convnext() -> convnext.ConvNeXt:
    blocks = [convnext.CNBlockConfig(16, 32, 1), convnext.CNBlockConfig(32, None, 1)]
    return convnext.ConvNeXt(blocks, num_classes=CLASSES)


ENTRIES = [
    of(name="resnet18", build=lambda: tv.resnet18(num_classes=CLASSES), data=images(3, 32)),
    of(
        name="resnext, bottlenecks in 2 groups",
        build=lambda: resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], CLASSES, groups=2, width_per_group=8),
        data=images(3, 32),
    ),
    of(
        name="resnet, dilated, group norm",
        build=lambda: resnet.ResNet(
            resnet.Bottleneck,
            [1, 1, 1, 1],
            CLASSES,
            width_per_group=16,
            replace_stride_with_dilation=[False, True, True],
            norm_layer=partial(nn.GroupNorm, 8),
        ),
        data=images(3, 32),
    ),
    of(name="alexnet", build=lambda: tv.alexnet(num_classes=CLASSES), data=images(3, 64)),
    of(name="squeezenet1_1", build=lambda: tv.squeezenet1_1(num_classes=CLASSES), data=images(3, 48)),
    of(name="mobilenet_v2", build=lambda: tv.mobilenet_v2(num_classes=CLASSES, width_mult=0.25), data=images(3, 32)),
    of(name="mobilenet_v3_small", build=lambda: tv.mobilenet_v3_small(num_classes=CLASSES, width_mult=0.5), data=images(3, 32)),
    of(name="shufflenet_v2_x0_5", build=lambda: tv.shufflenet_v2_x0_5(num_classes=CLASSES), data=images(3, 32)),
    of(name="mnasnet0_5", build=lambda: tv.mnasnet0_5(num_classes=CLASSES), data=images(3, 32)),
    of(
        name="googlenet",
        build=lambda: tv.googlenet(num_classes=CLASSES, aux_logits=False, init_weights=False),
        data=images(3, 64),
    ),
    of(name="densenet", build=partial(_densenet, memory_efficient=False), data=images(3, 32)),
    of(name="densenet, checkpointed", build=partial(_densenet, memory_efficient=True), data=images(3, 32)),
    of(name="efficientnet_b0", build=lambda: tv.efficientnet_b0(num_classes=CLASSES), data=images(3, 32)),
    of(name="regnet_y_400mf", build=lambda: tv.regnet_y_400mf(num_classes=CLASSES), data=images(3, 32)),
    of(name="convnext", build=_convnext, data=images(3, 32)),
    of(name="swin", build=partial(_swin, swin_transformer.SwinTransformerBlock), data=images(3, 32)),
    of(name="swin_v2", build=partial(_swin, swin_transformer.SwinTransformerBlockV2), data=images(3, 32)),
    of(
        name="vision transformer",
        build=lambda: tv.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=CLASSES),
        data=images(3, 32),
    ),
    of(
        name="maxvit",
        build=lambda: tv.maxvit.MaxVit((32, 32), 16, 4, [16, 32], [1, 1], 8, 0.0, num_classes=CLASSES),
        data=images(3, 32),
    ),
    of(
        name="lraspp_mobilenet_v3_large",
        build=lambda: segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES),
        data=images(3, 32),
        loss=_segmented,
    ),
]
