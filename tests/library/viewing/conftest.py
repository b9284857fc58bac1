"""Where the pictures go."""

import pytest


@pytest.fixture
def png(tmp_path):
    return tmp_path / "picture.png"
