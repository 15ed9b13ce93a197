"""Folders of artifacts: found, shared, reloaded, and kept through a kill."""

from __future__ import annotations

import errno
import os
import shutil
import time
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from fewfit.artifacts.files import recover
from fewfit.errors import InputError
from fewfit.serve.app import create_app
from fewfit.serve.tasks import TakenError, Tasks
from tests.serve.helpers import fitted
from tests.warm import Program


def test_artifacts_are_found_at_any_depth_and_share_one_model(tmp_path):
    fitted(tmp_path, "a")
    fitted(tmp_path / "deep" / "er", "b", shift=1)
    fitted(tmp_path / ".hidden", "c")
    (tmp_path / "notes.txt").write_text("no artifact")
    tasks = Tasks([tmp_path])
    assert tasks.names() == ["a", "b"]
    assert tasks.n_models() == 1
    assert tasks.get("a").model is tasks.get("b").model is tasks.open_model("fake")
    assert tasks.report.broken == {}
    assert Tasks([tmp_path / "a"]).names() == ["a"], "a folder may be an artifact itself"
    with pytest.raises(KeyError):
        tasks.get("c")


def test_folders_that_are_none_are_refused(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        Tasks([tmp_path / "nothing"])
    with pytest.raises(InputError, match="name a folder"):
        Tasks([])


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "text"])
def test_a_broken_artifact_is_reported_and_the_others_are_served(tmp_path, how):
    fitted(tmp_path, "good")
    fitted(tmp_path, "bad")
    file = tmp_path / "bad" / ("decoder.safetensors" if how in ("flip", "cut") else "manifest.json")
    data = bytearray(file.read_bytes())
    if how == "flip":
        data[-1] ^= 1
    file.write_bytes({"cut": data[:-9], "empty": b"", "text": b"{}"}.get(how, bytes(data)))
    tasks = Tasks([tmp_path])
    assert tasks.names() == ["good"]
    assert list(tasks.report.broken) == [str(tmp_path / "bad")]
    assert all(tasks.report.broken.values())


def test_of_two_tasks_with_one_name_the_second_is_reported(tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    fitted(first, "same")
    fitted(second, "same", shift=1)
    tasks = Tasks([first, second])
    assert tasks.get("same").folder == (first / "same").resolve()
    [(folder, why)] = tasks.report.broken.items()
    assert folder == str(second / "same")
    assert "one/same has the same name" in why


def test_a_link_to_an_artifact_is_reported_and_not_followed(tmp_path):
    fitted(tmp_path / "elsewhere", "old")
    (tmp_path / "served" / "team").mkdir(parents=True)
    (tmp_path / "served" / "team" / "new").symlink_to(tmp_path / "elsewhere" / "old")
    (tmp_path / "served" / "loop").symlink_to(tmp_path / "served")
    tasks = Tasks([tmp_path / "served"])
    assert tasks.names() == []
    [(folder, why)] = tasks.report.broken.items()
    assert folder == str(tmp_path / "served" / "team" / "new")
    assert "links are not followed" in why


def test_a_folder_is_told_from_those_that_are_served_on(tmp_path):
    fitted(tmp_path / "deep", "a")
    tasks = Tasks([tmp_path])
    assert tasks.shown(tasks.get("a").folder) == "deep/a"
    assert Tasks([tmp_path / "deep" / "a"]).shown(tasks.get("a").folder) == "a"
    assert Tasks([tmp_path, tmp_path]).shown(tasks.get("a").folder) == f"{tmp_path.name}/deep/a"
    assert tasks.shown("/elsewhere/b") == "b"
    assert tasks.shown(tmp_path / "deep" / "\udcff\n") == r"deep/\udcff "  # a name of any bytes


def test_what_an_error_says_to_a_caller_holds_no_place_of_the_servers_files(tmp_path, monkeypatch):
    fitted(tmp_path / "served", "a")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWFIT_CACHE", str(tmp_path / "cache"))
    tasks = Tasks(["served"], store="answers.db")
    for file in (tasks.place("b"), tmp_path / "answers.db", tmp_path / "cache" / "observations"):
        assert tasks.told(f"{file} cannot be used") == f"{file.name} cannot be used"


def test_a_new_task_goes_to_the_first_folder_and_not_where_another_would_hide_it(tmp_path):
    fitted(tmp_path / "team", "deep")
    fitted(tmp_path, "flat")
    tasks = Tasks([tmp_path])
    assert tasks.place("flat") == tmp_path / "flat"
    assert tasks.place("new") == tmp_path / "new"
    with pytest.raises(TakenError, match="another folder") as error:
        tasks.place("deep")
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("name", ["manifest.json", "Tuning.json", "page.sqlite3-wal"])
def test_names_of_files_that_fewfit_looks_for_are_no_names_of_tasks(tmp_path, name):
    fitted(tmp_path, name)
    fitted(tmp_path, "good")
    tasks = Tasks([tmp_path])
    assert tasks.names() == ["good"]
    assert "take another" in tasks.report.broken[str(tmp_path / name)]
    with pytest.raises(InputError, match="fewfit's own"):
        tasks.place(name)
    if not name.startswith("page"):
        create_app(tasks, allow_fit=True)  # a folder of this name makes no artifact of the first


def test_a_name_that_no_address_holds_is_reported(tmp_path):
    fitted(tmp_path, "a b")
    tasks = Tasks([tmp_path])
    assert tasks.names() == []
    assert "no name" in tasks.report.broken[str(tmp_path / "a b")]


def test_a_reload_takes_what_is_new_and_changed_and_drops_what_is_gone(tmp_path):
    for name in ("kept", "changed", "gone", "broken"):
        fitted(tmp_path, name)
    tasks = Tasks([tmp_path])
    before = {name: tasks.get(name) for name in tasks.names()}
    fitted(tmp_path, "new")
    fitted(tmp_path, "changed", shift=5)
    shutil.rmtree(tmp_path / "gone")
    (tmp_path / "broken" / "manifest.json").write_text("{}")
    report = tasks.reload()
    assert (report.loaded, report.kept, report.gone) == (["changed", "new"], ["kept"], ["gone"])
    assert list(report.broken) == [str(tmp_path / "broken")]
    assert tasks.names() == ["broken", "changed", "kept", "new"]
    assert tasks.get("kept") is before["kept"]
    assert tasks.get("broken") is before["broken"], "what was served before stays as it was"
    assert tasks.get("changed") is not before["changed"]
    assert tasks.get("new").model is before["kept"].model


def test_a_task_that_is_being_replaced_is_not_dropped(tmp_path):
    fitted(tmp_path, "task")
    tasks = Tasks([tmp_path])
    aside = tmp_path / ".task.old.x1"
    aside.mkdir()
    (tmp_path / "task").rename(aside / "task")  # between the two renames of a write
    report = tasks.reload()
    assert (report.kept, report.gone, tasks.names()) == (["task"], [], ["task"])


@pytest.mark.parametrize("what", ["names", "files"])
def test_a_folder_that_cannot_be_looked_into_is_reported_and_its_tasks_stay(
    tmp_path, monkeypatch, what
):
    fitted(tmp_path, "good")
    fitted(tmp_path / "team", "shut")
    tasks = Tasks([tmp_path])
    shut = str(tmp_path / "team" / "shut")
    scan, stat = os.scandir, os.stat

    def refused(call, path, *args, **options):  # as the system does; root may do anything
        if str(path).startswith(shut + os.sep * (call is stat)):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return call(path, *args, **options)

    if what == "names":
        monkeypatch.setattr(os, "scandir", partial(refused, scan))
    monkeypatch.setattr(os, "stat", partial(refused, stat))
    report = tasks.reload()
    assert (report.gone, tasks.names()) == ([], ["good", "shut"])
    [(folder, why)] = report.broken.items()
    assert folder == shut
    assert "Permission denied" in why
    assert Tasks([tmp_path]).names() == ["good"]
    monkeypatch.undo()
    shutil.rmtree(shut)
    assert tasks.reload().gone == ["shut"]


def test_what_a_kill_left_aside_is_put_back(tmp_path):
    fitted(tmp_path, "task", shift=3)
    fitted(tmp_path, "whole")
    manifest = (tmp_path / "task" / "manifest.json").read_bytes()
    for name, where in (("task", ".task.old.x1"), ("whole", ".whole.old.x2")):
        (tmp_path / where).mkdir()
        shutil.copytree(tmp_path / name, tmp_path / where / name)
    shutil.rmtree(tmp_path / "task")
    assert recover(tmp_path) == [tmp_path / "task"], "what is there is not replaced"
    assert (tmp_path / "task" / "manifest.json").read_bytes() == manifest
    assert Tasks([tmp_path]).names() == ["task", "whole"]


def test_no_task_that_was_fitted_is_lost_when_the_server_is_killed(tmp_path):
    """Fits, one new and one that replaces, over and over; killed; all that were told are there."""
    code = """
        import sys
        from pathlib import Path
        from fewfit import FewShotClassifier
        from fewfit.serve.tasks import Tasks
        root = Path(sys.argv[1])
        tasks = Tasks([root])
        clf = FewShotClassifier("fake", labels={"no": "bad", "yes": "good"}, store=None)
        clf.fit(["so good", "quite bad"], ["yes", "no"])
        for i in range(1000):
            for name in ("same", f"n{i}"):
                clf.save(root / name)
                tasks.add(name, root / name)
                print(name, flush=True)
    """
    for k in range(2):
        root = tmp_path / str(k)
        root.mkdir()
        program = Program(code, root)
        told = _wait(program, 5 + 4 * k)
        program.kill()
        program.wait()
        tasks = Tasks([root])
        assert tasks.report.broken == {}
        assert set(told) <= set(tasks.names())


def _wait(program: Program, n: int) -> list[str]:
    until = time.monotonic() + 30
    while len(lines := Path(program._files[0]).read_text().splitlines()) < n:
        assert time.monotonic() < until
        assert program.poll() is None
        time.sleep(0.002)
    return lines
