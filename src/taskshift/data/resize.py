"""Images enlarged, once, to the smallest side that a net takes."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from taskshift.data.labelled_data import LabelledData

ROWS_AT_ONCE = 8192  # bounds what interpolate needs beside its result


def enlarged(data: LabelledData, smallest_side: int) -> LabelledData:
    """The same data with no side shorter than `smallest_side`; the very same object where none is.

    Bilinear, pixels taken as areas (`align_corners=False`). A side that is long enough keeps its length. Costs memory in
    proportion to the new number of pixels; the data's `note` says that it was done.
    """
    if len(data.input_shape) != 3:
        if smallest_side <= 1:
            return data
        raise ValueError(
            f"the net takes images of at least {smallest_side}×{smallest_side}, but an example of {data.name} has the shape "
            f"{data.input_shape}; choose a net for vectors, such as net=mlp, or data of shape [C, H, W]"
        )
    channels, *sides = data.input_shape
    if min(sides) >= smallest_side:
        return data
    larger = [max(side, smallest_side) for side in sides]
    inputs = data.inputs.new_empty(len(data.inputs), channels, *larger)
    for small, large in zip(data.inputs.split(ROWS_AT_ONCE), inputs.split(ROWS_AT_ONCE), strict=True):
        large.copy_(nn.functional.interpolate(small, size=larger, mode="bilinear", align_corners=False))
    before, after = ("×".join(map(str, shape)) for shape in (sides, larger))
    return replace(
        data, inputs=inputs, note=f"{data.name}: images enlarged from {before} to {after}, the smallest that the net takes"
    )
