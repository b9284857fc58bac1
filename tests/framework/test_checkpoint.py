"""Files appear whole or not at all; states are compared bit for bit."""

import pytest
import torch

from taskshift import checkpoint
from taskshift.faults import Fault
from taskshift.intact import RESTORE


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "deep" / "state.pt"
    checkpoint.save(path, {"a": torch.ones(3)})

    def fails(partial):
        partial.write_bytes(b"half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        checkpoint.write_whole(path, fails)
    assert checkpoint.load(path)["a"].tolist() == [1.0, 1.0, 1.0]


def test_no_bit_changes_unseen(tmp_path):
    state = {"net": {"w": torch.arange(6.0), "b": torch.zeros(2)}, "n": 3, "names": ["a", None]}
    path = tmp_path / "state.pt"
    checkpoint.save(path, state)
    whole, said = path.read_bytes(), set()
    for bit in range(0, 8 * len(whole), 61):
        turned = bytearray(whole)
        turned[bit // 8] ^= 1 << bit % 8
        path.write_bytes(turned)
        try:
            assert checkpoint.first_difference(checkpoint.load(path), state) is None, bit
        except Fault as fault:
            said.add(str(fault))
    assert said == {f"{path} is damaged (its checksum is another); {RESTORE}"}


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.98])
def test_a_file_that_was_cut_is_a_sentence(kept, tmp_path):
    path = tmp_path / "state.pt"
    checkpoint.save(path, {"a": torch.arange(100.0)})
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(Fault, match=r"state.pt is damaged \(.+\); put a copy of it back"):
        checkpoint.load(path)


def test_what_others_saved_has_the_checksums_of_its_parts(tmp_path):
    path = tmp_path / "theirs.pt"
    torch.save({"a": torch.arange(100.0)}, path)
    assert checkpoint.load(path)["a"].sum() == 4950
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(100.0).numpy().tobytes()) + 50] ^= 1
    path.write_bytes(content)
    assert torch.load(path)["a"].sum() != 4950  # torch itself sees nothing
    with pytest.raises(Fault, match="theirs.pt is damaged"):
        checkpoint.load(path)


def test_loading_never_unpickles_objects(tmp_path):
    path = tmp_path / "evil.pt"
    torch.save({"net": checkpoint.Path("x")}, path)
    with pytest.raises(Exception, match="(?i)weights.only"):
        checkpoint.load(path)


def test_the_random_state_comes_back():
    device = torch.device("cpu")
    state = checkpoint.random_state(device)
    drawn = torch.rand(5)
    checkpoint.set_random_state(state, device)
    assert torch.equal(torch.rand(5), drawn)


@pytest.mark.parametrize(
    ("one", "other", "where"),
    [
        ({"a": torch.tensor([1.0, float("nan")])}, {"a": torch.tensor([1.0, float("nan")])}, None),
        ({"a": {"b": torch.tensor(0.0)}}, {"a": {"b": torch.tensor(-0.0)}}, "a.b"),
        ({"a": [1, 2]}, {"a": [1, 3]}, "a[1]"),
        ({"a": torch.ones(2)}, {"a": torch.ones(2, dtype=torch.float64)}, "a"),
        ({"a": 1}, {"b": 1}, ": keys ['a', 'b']"),
        (float("nan"), float("nan"), None),
    ],
)
def test_the_first_difference_is_named(one, other, where):
    assert checkpoint.first_difference(one, other) == where


def test_a_clone_shares_nothing():
    state = {"a": [torch.zeros(2), {"b": torch.zeros(1)}], "n": 3}
    copy = checkpoint.cloned(state)
    state["a"][0] += 1
    state["a"][1]["b"] += 1
    assert copy["a"][0].sum() == 0
    assert copy["a"][1]["b"] == 0
