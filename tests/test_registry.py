from __future__ import annotations

import sys

import pytest

from fewfit.errors import InputError
from fewfit.registry import Registry

OWN = {"linear-probe": "linear_probe:LinearProbe", "dect": "dect:DecT"}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a package with three entry points; the last cannot be imported."""
    (tmp_path / "stranger.py").write_text("class Nearest: pass\nclass Own: pass\n")
    folder = tmp_path / "stranger-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[fewfit.decoders]\nnearest = stranger:Nearest\ndect = stranger:Own\nbad = nowhere:Gone\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("stranger", None)


def test_own_entries_are_imported_when_they_are_looked_up():
    table = Registry("fewfit.decoders", OWN)
    assert list(table) == ["linear-probe", "dect"]
    assert table["dect"].__name__ == "DecT"
    assert "os" not in table
    with pytest.raises(KeyError):
        table["os:system"]


def test_installed_packages_add_names_and_take_none(installed):
    table = Registry("fewfit.decoders", OWN)
    assert sorted(table) == ["bad", "dect", "linear-probe", "nearest"]
    assert len(table) == 4
    assert table["nearest"].__module__ == "stranger"
    assert table["dect"].__module__ == "fewfit.decoders.dect"


def test_a_broken_package_is_named(installed):
    with pytest.raises(InputError, match="'bad' of the installed package stranger"):
        Registry("fewfit.decoders", OWN)["bad"]


def test_another_room_does_not_see_them(installed):
    assert list(Registry("fewfit.models", {})) == []
