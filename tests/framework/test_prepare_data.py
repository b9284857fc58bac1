"""`scripts/prepare_data.py`: files of the right content in the right place, or one sentence and nothing written."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_data.py"
CONTENTS = {
    f"{split}-{kind}-ubyte": f"{split} {kind}".encode() for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
}


@pytest.fixture
def script(monkeypatch):
    """The script as a module that takes our contents for the real ones."""
    spec = importlib.util.spec_from_file_location("prepare_data", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    checksums = {name: hashlib.md5(content).hexdigest() for name, content in CONTENTS.items()}
    assert set(module.MNIST) == set(module.FASHION_MNIST) == set(checksums)
    monkeypatch.setattr(module, "MNIST", checksums)
    monkeypatch.setattr(module, "FASHION_MNIST", checksums)
    return module


def folder_of_gz(place: Path) -> Path:
    place.mkdir()
    for name, content in CONTENTS.items():
        (place / f"{name}.gz").write_bytes(gzip.compress(content))
    return place


def plain_folder(place: Path) -> Path:
    inner = place / "package" / "data"
    inner.mkdir(parents=True)
    for name, content in CONTENTS.items():
        (inner / name).write_bytes(content)
    (place / "package.json").write_text("{}")
    return place


def archive(place: Path) -> Path:
    file = place.with_suffix(".tgz")
    with tarfile.open(file, "w:gz") as tar:
        for name, content in {**CONTENTS, "package.json": b"{}"}.items():
            member = tarfile.TarInfo(f"package/data/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file


def files_below(root: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in root.rglob("*") if file.is_file()}


def refusal(script, *arguments) -> str:
    """The sentence with which the script ends."""
    with pytest.raises(SystemExit) as caught:
        script.main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, str)
    assert "\n" not in caught.value.code
    return caught.value.code


@pytest.mark.parametrize("packed", [folder_of_gz, plain_folder, archive])
@pytest.mark.parametrize(("option", "folder"), [("--mnist", "MNIST/raw"), ("--fashion-mnist", "FashionMNIST/raw")])
def test_every_kind_of_package_is_unpacked(script, tmp_path, packed, option, folder):
    root = tmp_path / "data"
    script.main([option, str(packed(tmp_path / "source")), "--root", str(root)])
    assert files_below(root / folder) == CONTENTS
    script.main([option, str(tmp_path / packed(tmp_path / "again")), "--root", str(root)])  # the same once more is no fault
    assert files_below(root) == CONTENTS


def test_both_at_once(script, tmp_path):
    source = plain_folder(tmp_path / "source")
    script.main(["--mnist", str(source), "--fashion-mnist", str(source), "--root", str(tmp_path / "data")])
    assert files_below(tmp_path / "data/MNIST/raw") == files_below(tmp_path / "data/FashionMNIST/raw") == CONTENTS


def test_the_root_is_the_environments(script, tmp_path, monkeypatch):
    monkeypatch.setenv("TASKSHIFT_DATA", str(tmp_path / "elsewhere"))
    script.main(["--mnist", str(plain_folder(tmp_path / "source"))])
    assert files_below(tmp_path / "elsewhere/MNIST/raw") == CONTENTS


def test_fashion_mnist_comes_from_debian_by_default(script, tmp_path, monkeypatch):
    assert script.parse(["--fashion-mnist"]).fashion_mnist == "/usr/share/datasets/fashion-mnist"
    monkeypatch.setattr(script, "DEBIAN", str(tmp_path / "debian"))
    sentence = refusal(script, "--fashion-mnist", "--root", tmp_path / "data")
    assert sentence == f"{tmp_path / 'debian'} does not exist; `apt-get install dataset-fashion-mnist` makes it"


def test_another_content_is_overwritten_by_force_alone(script, tmp_path):
    source, target = plain_folder(tmp_path / "source"), tmp_path / "data/MNIST/raw"
    target.mkdir(parents=True)
    (target / "t10k-labels-idx1-ubyte").write_bytes(b"mine")
    sentence = refusal(script, "--mnist", source, "--root", tmp_path / "data")
    assert (
        sentence
        == f"{target / 't10k-labels-idx1-ubyte'} exists with another content; move it away, or give --force to overwrite it"
    )
    assert files_below(target) == {"t10k-labels-idx1-ubyte": b"mine"}, "something was written before all was checked"
    script.main(["--mnist", str(source), "--root", str(tmp_path / "data"), "--force"])
    assert files_below(target) == CONTENTS


def test_a_wrong_checksum_writes_nothing(script, tmp_path):
    source = folder_of_gz(tmp_path / "source")
    (source / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"other"))
    sentence = refusal(script, "--fashion-mnist", source, "--root", tmp_path / "data", "--force")
    assert sentence.startswith(f"t10k-images-idx3-ubyte in {source} has the MD5 795f3202b17cb6bc3d4b771d8c6c9eaf where ")
    assert not (tmp_path / "data").exists()


def test_an_absent_file_is_named(script, tmp_path):
    source = folder_of_gz(tmp_path / "source")
    (source / "train-labels-idx1-ubyte.gz").unlink()
    sentence = refusal(script, "--mnist", source, "--root", tmp_path / "data")
    assert sentence.startswith(f"{source} holds no train-labels-idx1-ubyte (nor train-labels-idx1-ubyte.gz)")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("kind", ["archive", "cut archive", "gz", "cut gz", "damaged gz"])
def test_what_cannot_be_unpacked_is_one_sentence(script, tmp_path, kind):
    if "archive" in kind:
        source = archive(tmp_path / "source")
        source.write_bytes(b"no archive" if kind == "archive" else source.read_bytes()[:200])
    else:
        source = folder_of_gz(tmp_path / "source")
        file = source / "train-images-idx3-ubyte.gz"
        whole = file.read_bytes()
        file.write_bytes({"gz": b"no gz", "cut gz": whole[:-9], "damaged gz": whole[:10] + b"\xff" * 8 + whole[18:]}[kind])
    assert refusal(script, "--mnist", source, "--root", tmp_path / "data").startswith(f"{source} can't be unpacked (")
    assert not (tmp_path / "data").exists()


def test_a_source_that_is_not_there_is_one_sentence(script, tmp_path):
    assert (
        refusal(script, "--mnist", tmp_path / "nothing", "--root", tmp_path / "data") == f"{tmp_path / 'nothing'} does not exist"
    )


def test_no_set_named_is_usage(script, capsys):
    with pytest.raises(SystemExit) as caught:
        script.main([])
    assert caught.value.code == 2
    assert "name a set: --fashion-mnist [FROM] or --mnist FROM" in capsys.readouterr().err
