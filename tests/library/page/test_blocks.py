"""Arrays in a page: four digits, and NaN, the infinities and 0 as they are. Decoded here from the format's description alone."""

from __future__ import annotations

import base64
import gzip
import json
import math

import numpy as np
import pytest

from loss_landscape.page.blocks import Block, json_text

DRAW = np.random.default_rng(0)
BOWL = np.add.outer(np.linspace(-1, 1, 41) ** 2, 3 * np.linspace(-1, 1, 41) ** 2)

ARRAYS = {
    "a bowl": 0.02 + BOWL,
    "a flat plane": 2.3 + 1e-4 * BOWL,
    "mostly rounding": 2.3 + 1e-15 * DRAW.integers(0, 9, (41, 41)),
    "nine decades": 10.0 ** DRAW.uniform(-7, 2, (41, 41)),
    "a net that diverges": 10.0 ** DRAW.uniform(-2, 300, (41, 41)),
    "losses of both signs": DRAW.standard_normal((41, 41)),
    "the largest numbers": 1.7e308 * DRAW.uniform(-1.0, 1.0, (41, 41)),
    "small next to zeros": np.where(DRAW.random((41, 41)) < 0.1, 0.0, 10.0 ** DRAW.uniform(-6, 1, (41, 41))),
    "a constant": np.full((5, 7), 0.3),
    "zeros": np.zeros((3, 3)),
    "subnormal numbers": 5e-324 * DRAW.integers(1, 1000, (4, 4)),
    "a volume": DRAW.random((5, 6, 7)),
    "a line": DRAW.random(9),
    "one cell": np.array([[7.5]]),
}


def decoded(text: str, entry: dict) -> np.ndarray:
    """An array of a block, by what is written about the format."""
    whole = gzip.decompress(base64.b64decode(text))
    data = whole[4 + int.from_bytes(whole[:4], "little") :][entry["at"] :]
    shape, width = entry["shape"], entry["width"]
    count = math.prod(shape)
    bytes_ = [np.frombuffer(data[byte * count : (byte + 1) * count], np.uint8).astype(int) for byte in range(width)]
    changes = sum(part * 256**byte for byte, part in enumerate(bytes_)).reshape(-1, shape[-1])
    codes = np.cumsum(changes, axis=1) % 256**width
    share = codes / (256**width - 16)
    places = entry["low"] * (1 - share) + entry["high"] * share
    with np.errstate(over="ignore"):
        values = 10.0**places if entry["log"] else places
    for number, special in enumerate((math.nan, math.inf, -math.inf, 0.0), start=1):
        values = np.where(codes == 256**width - number, special, values)
    return values.reshape(shape)


def returned(values: np.ndarray) -> np.ndarray:
    block = Block()
    block.add(np.arange(5.0))
    entry = json.loads(json_text(block.add(values)))
    return decoded(block.text({}), entry)


@pytest.mark.parametrize("name", ARRAYS)
def test_values_come_back_to_four_digits(name):
    """Within 1e-4 of the value, or of the relief."""
    values = ARRAYS[name]
    with np.errstate(over="ignore"):
        error, relief = np.abs(returned(values) / 2 - values / 2), np.ptp(values / 2)
    assert (error <= 1e-4 * np.maximum(np.abs(values / 2), relief)).all()
    if (values > 0).all():
        assert (error <= 1e-4 * np.abs(values / 2)).all()  # small losses keep their digits beside large ones


@pytest.mark.parametrize("name", ARRAYS)
def test_cells_that_are_not_finite_are_told_apart(name):
    values = ARRAYS[name].copy()
    kinds = (math.nan, math.inf, -math.inf, 0.0)
    for at, special in enumerate(kinds[: values.size]):
        values.reshape(-1)[at] = special
    back = returned(values)
    for test in (np.isnan, np.isposinf, np.isneginf):
        assert (test(back) == test(values)).all()
    assert np.isfinite(back).sum() == np.isfinite(values).sum()
    if not (values[np.isfinite(values)] < 0).any():
        assert (back[values == 0] == 0).all()


@pytest.mark.parametrize("values", [np.full((2, 2), math.nan), np.full(3, math.inf)], ids=["NaN", "∞"])
def test_an_array_without_a_finite_cell(values):
    np.testing.assert_array_equal(returned(values), values)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3)])
def test_an_empty_array_takes_nothing(shape):
    block = Block()
    entry = block.add(np.zeros(shape))
    assert (entry["shape"], block.add(np.ones(2))["at"]) == (list(shape), 0)


def test_the_text_is_the_same_twice_and_small():
    def text() -> str:
        block = Block()
        block.add(ARRAYS["a bowl"])
        return block.text({"name": "<é>", "b": 1, "a": 2})

    assert text() == text()
    assert len(text()) < 41 * 41 * 2


def test_json_has_neither_tags_nor_numbers_that_json_lacks():
    text = json_text({"a": ["</script>", math.nan, math.inf, -math.inf, 0.1 + 0.2, np.float64(2.0), np.int64(3), None, True]})
    assert text == '{"a":["\\u003c/script\\u003e","NaN","Infinity","-Infinity",0.3,2,3,null,true]}'
