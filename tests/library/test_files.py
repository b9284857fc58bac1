"""What is written is on the disk, under its name, when the call returns."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from loss_landscape.files import sync_folder, write_first, write_whole


@pytest.fixture
def events(monkeypatch):
    """What happened to the disk, in turn: ("synced", what) and ("named", file)."""
    seen, fsync = [], os.fsync

    def syncing(number):
        seen.append(("synced", Path(os.readlink(f"/proc/self/fd/{number}"))))
        fsync(number)

    def naming(original, place):
        def named(*paths, **options):
            seen.append(("named", Path(paths[place])))
            return original(*paths, **options)

        return named

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "link", naming(os.link, 1))
    monkeypatch.setattr(Path, "replace", naming(Path.replace, 1))
    return seen


@pytest.mark.parametrize("write", [write_whole, write_first])
def test_content_then_name_then_folder(write, events, tmp_path):
    path = tmp_path / "deep" / "losses.npy"
    write(path, lambda beside: np.save(beside, np.arange(3.0)))
    (first, beside), *rest = events
    assert first == "synced"
    assert beside.parent == path.parent
    assert rest == [("named", path), ("synced", path.parent)]
    assert np.load(path).tolist() == [0.0, 1.0, 2.0]
    assert [each.name for each in path.parent.iterdir()] == ["losses.npy"]


def test_a_file_system_that_syncs_no_folders_is_borne_with(tmp_path, monkeypatch):
    def refusing(code):
        def refuse(number):
            raise OSError(code, os.strerror(code))

        return refuse

    monkeypatch.setattr(os, "fsync", refusing(errno.EINVAL))
    sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)
