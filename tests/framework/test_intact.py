"""Damage to a JSON file is a sentence, whatever bit it hits."""

import json
import math
import zlib

import pytest

from taskshift.faults import Fault
from taskshift.intact import read_json, write_json

CONTENT = {"config": {"seed": 0, "lr": [0.1, 1e-300], "name": "実験"}, "none": None, "inf": math.inf}


def test_what_was_written_is_read(tmp_path):
    write_json(tmp_path / "deep" / "run.json", CONTENT)
    assert read_json(tmp_path / "deep" / "run.json") == CONTENT


def test_no_bit_of_the_values_changes_unseen(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, CONTENT)
    whole, unseen, said = path.read_bytes(), [], set()
    for bit in range(8 * len(whole)):
        turned = bytearray(whole)
        turned[bit // 8] ^= 1 << bit % 8
        path.write_bytes(turned)
        try:
            content = read_json(path)
        except Fault as fault:
            said.add(str(fault).partition(" (")[0])
        else:  # a blank that became another, or the word "checksum" itself
            unseen += [content] if {key: content.get(key) for key in CONTENT} != CONTENT else []
    assert unseen == []
    assert said == {f"{path} is damaged"}


def test_a_file_that_is_gone_says_what_to_do(tmp_path):
    with pytest.raises(Fault) as fault:
        read_json(tmp_path / "run.json", "look elsewhere")
    assert str(fault.value) == f"{tmp_path / 'run.json'} is gone; look elsewhere"


@pytest.mark.parametrize("text", ["[1]", "3"])
def test_another_kind_of_json_is_no_object(text, tmp_path):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(Fault) as fault:
        read_json(tmp_path / "run.json", "look elsewhere")
    assert str(fault.value) == f"{tmp_path / 'run.json'} is damaged (no JSON object); look elsewhere"


@pytest.mark.parametrize("text", ["", "[1]", "{", "3"])
def test_what_is_no_object_is_a_sentence(text, tmp_path):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(Fault, match=r"run.json is damaged \(.+\); put a copy of it back, or begin again under another run_name"):
        read_json(tmp_path / "run.json")


@pytest.mark.parametrize("content", [{}, {"one": 1}, {"nested": {"list": [], "none": None}, "ü": "\n}"}])
def test_a_file_is_json_as_it_is_written_with_a_checksum_as_its_last_key(tmp_path, content):
    write_json(tmp_path / "file.json", content)
    text = (tmp_path / "file.json").read_text()
    found = json.loads(text)
    assert text == json.dumps(found, indent=2) + "\n"
    assert found.pop(list(found)[-1]) == zlib.crc32(json.dumps(content, indent=2).encode())
    assert found == content == read_json(tmp_path / "file.json")
