"""What is served: fitted tasks by name, and one copy of each frozen model under them."""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fewfit.artifacts import schema
from fewfit.artifacts.files import ASIDE, recover
from fewfit.caches import cache_folder
from fewfit.errors import ArtifactError, FewfitError, InputError, printable
from fewfit.estimators.base import TextEstimator
from fewfit.estimators.loading import load
from fewfit.estimators.opening import open_model
from fewfit.models import FrozenModel
from fewfit.models.optional import check_installed, network_of, share_network

MANIFESTS = (schema.MANIFEST, "tuning.json")
"""One of which every artifact has."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Of a task: what is safe in a path and in an address."""

PAGE_FILE = "page.sqlite3"
"""What the page keeps, beside the artifacts in the first folder."""


class TakenError(FewfitError):
    """The name of a new task is that of another, which it cannot take the place of."""


@dataclass(frozen=True)
class Served:
    """A task that is served.

    Attributes
    ----------
    name : str
        Of its folder.
    folder : path
    estimator : TextEstimator
        Its frozen model is the one copy of all tasks on it.
    key : str
        Of its frozen model: the same for models that give the same answers.
    network : str
        Of what its frozen model runs on: the same for tuned models on one base model.
    stamp : tuple
        What of its files shows that they have changed.
    """

    name: str
    folder: Path
    estimator: TextEstimator
    key: str
    network: str
    stamp: tuple[Any, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """What a row has to hold."""
        return tuple(self.estimator.task_.template.fields)

    @property
    def classes(self) -> list[Any]:
        """The labels, in the order of the probabilities."""
        return self.estimator.classes_.tolist()

    @property
    def model(self) -> FrozenModel:
        """The frozen model that is asked."""
        return self.estimator.task_.model


@dataclass
class Report:
    """What a reload came to.

    Attributes
    ----------
    loaded, kept, gone : list of str
        Names of tasks that are new or have changed, that are as they were, that are no more.
    broken : dict of str to str
        Folder -> why what lies in it is not served. A task that was served before stays as it was.
    """

    loaded: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)


class Tasks:
    """The tasks of some folders. What is asked for has the state of one moment; threads may share.

    Parameters
    ----------
    folders : sequence of path
        Artifacts, or folders with artifacts in them, at any depth. The first is where new tasks go.
    store : path, "default" or None, default=None
        Where answers to predictions are kept. With None none are.
    models : mapping of str to str, optional
        The frozen model, by the name that an artifact has for it, that is asked in its place.

    Raises
    ------
    InputError
        If a folder does not exist.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        *,
        store: str | Path | None = None,
        models: Mapping[str, str] | None = None,
    ) -> None:
        if not folders:
            raise InputError("serve: name a folder with artifacts")
        for folder in folders:
            if not Path(folder).is_dir():
                raise InputError(f"serve: {folder} is no folder")
        # Absolute: so `told` finds them in what errors say.
        self.folders = [Path(folder).absolute() for folder in folders]
        self._store = store if store in (None, "default") else Path(store).absolute()
        self._named = dict(models or {})
        self._own: dict[str, Served] = {}
        self._models: dict[str, FrozenModel] = {}
        self._networks: dict[str, Any] = {}
        self._changing = threading.Lock()
        for root in self.folders:  # nothing of this server writes yet
            for place in {aside.parent for aside in root.rglob(ASIDE)}:
                recover(place)
        self.report = self.reload()

    def names(self) -> list[str]:
        """Return the names of all tasks, sorted."""
        return sorted(self._own)

    def get(self, name: str) -> Served:
        """Return a task (KeyError if there is none of this name)."""
        return self._own[name]

    def all(self) -> list[Served]:
        """Return all tasks, in the order of their names."""
        own = self._own
        return [own[name] for name in sorted(own)]

    def n_models(self) -> int:
        """Return how many frozen models there are under the tasks."""
        return len({task.network for task in self._own.values()})

    def open_model(self, spec: str) -> FrozenModel:
        """Return a frozen model by name: the copy that tasks on it are asked with."""
        return self._shared(open_model(spec, self._store))

    def place(self, name: str) -> Path:
        """Return the folder of a new task, or of the one that it replaces (InputError).

        TakenError where the one of this name is served from elsewhere, and so would come back.
        """
        folder, known = self.folders[0] / check_name(name), self._own.get(name)
        if known is not None and known.folder.resolve() != folder.resolve():
            raise TakenError(f"{name!r} is served from another folder; take another name")
        return folder

    def add(self, name: str, folder: str | Path) -> Served:
        """Serve the artifact of a folder from now on, in the place of what has this name.

        Raises
        ------
        InputError
            If the name is none.
        ArtifactError, ModelMismatchError
            If it cannot be loaded.
        """
        check_name(name)
        with self._changing:
            task = self._load(name, Path(folder).resolve())
            self._own = {**self._own, name: task}
        return task

    def reload(self) -> Report:
        """Look at the folders again: what is new or has changed is loaded, what is gone goes.

        Requests that have begun end with what they began with.
        """
        with self._changing:
            report, found, unread = Report(), {}, []
            for folder in self._artifacts(unread.append):
                name = folder.name
                if name in found:
                    other = self.shown(found[name].folder)
                    report.broken[str(folder)] = f"{other} has the same name; rename one of them"
                    continue
                known = self._own.get(name)
                try:
                    check_name(name)
                    if folder.is_symlink():
                        raise ArtifactError("links are not followed; serve what it leads to")
                    if known and known.folder == folder and known.stamp == _stamp(folder):
                        found[name] = known
                        report.kept.append(name)
                        continue
                    found[name] = self._load(name, folder)
                    report.loaded.append(name)
                except (FewfitError, OSError) as error:
                    report.broken[str(folder)] = str(error)
                    if known and known.folder == folder:
                        found[name] = known
            blind = {Path(error.filename): f"cannot be read: {error.strerror}" for error in unread}
            report.broken |= {str(place): why for place, why in blind.items()}
            for name in self._own.keys() - found.keys():
                folder = self._own[name].folder
                # What cannot be looked at is not gone, and neither is what is being replaced.
                if any(map(folder.is_relative_to, blind)) or any(
                    folder.parent.glob(ASIDE.replace("*", name, 1))
                ):
                    found[name] = self._own[name]
                    report.kept.append(name)
            report.gone = sorted(self._own.keys() - found.keys())
            self._own = found
            self._forget()
        return report

    def shown(self, folder: str | Path) -> str:
        """Return a folder as a caller may know it: below those that are served, and printable."""
        own = Path(folder)
        for root in map(Path.resolve, self.folders):
            if own.is_relative_to(root):
                several = len(self.folders) > 1 or own == root
                return printable(own.relative_to(root.parent if several else root).as_posix())
        return printable(own.name)

    def told(self, message: str) -> str:
        """Return what an error says as a caller may know it: without where files are."""
        several = len(self.folders) > 1
        own = [place for root in self.folders for place in (root.resolve(), root)]
        places = [place.parent if several else place for place in own]
        if isinstance(self._store, Path):
            places.append(self._store.parent)
        for folder in (cache_folder, tempfile.gettempdir):
            with suppress(OSError):  # there is none
                places.append(Path(folder()).absolute())
        for place in sorted(map(str, places), key=len, reverse=True):  # one may be in another
            message = message.replace(f"{place}{os.sep}", "")
        return message

    def _artifacts(self, unread: Callable[[OSError], object]) -> Iterator[Path]:
        """Yield the folders of artifacts; links among them too, which are not followed.

        `unread` is told of each folder whose names cannot be read, but for one that has just gone.
        """

        def failed(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                unread(error)

        seen: set[Path] = set()
        for root in map(Path.resolve, self.folders):
            for at, below, files in os.walk(root, onerror=failed):
                below[:] = sorted(name for name in below if not name.startswith("."))
                links = [path for name in below if (path := Path(at, name)).is_symlink()]
                found = [link for link in links if any(os.path.isfile(link / m) for m in MANIFESTS)]
                if not {*MANIFESTS}.isdisjoint(files):
                    found.insert(0, Path(at))
                for folder in found:
                    if folder not in seen:
                        seen.add(folder)
                        yield folder

    def _load(self, name: str, folder: Path) -> Served:
        stamp = _stamp(folder)
        estimator = load(folder, store=self._store, errors="nan", **self._elsewhere(folder))
        check_installed(estimator.task_.model)
        shared = self._shared(estimator.task_.model)
        estimator.task_ = replace(estimator.task_, model=shared)
        estimator.set_params(model=shared)
        key = key_of(shared)
        return Served(name, folder, estimator, key, network_of(shared) or key, stamp)

    def _elsewhere(self, folder: Path) -> dict[str, str]:
        if not self._named or not (folder / schema.MANIFEST).is_file():
            return {}
        spec = schema.read(folder)[0].model_spec
        return {"model": self._named[spec]} if spec in self._named else {}

    def _shared(self, model: FrozenModel) -> FrozenModel:
        key = key_of(model)
        if key not in self._models:
            share_network(model, self._networks)
            self._models.setdefault(key, model)
        return self._models[key]

    def _forget(self) -> None:
        """Let go of frozen models that no task is on any more, tuned ones above all."""
        used = {task.key for task in self._own.values()}
        for key in self._models.keys() - used:
            del self._models[key]
        for network in self._networks.keys() - {task.network for task in self._own.values()}:
            del self._networks[network]


def key_of(model: FrozenModel) -> str:
    """Return what two frozen models have in common that give the same answers."""
    return json.dumps(dict(model.identity), sort_keys=True)


def check_name(name: str) -> str:
    """Return a task's name (InputError if it is none)."""
    if not NAME.fullmatch(name):
        raise InputError(
            f"task: {name!r:.80} is no name; letters, digits, '.', '_' and '-', at most 64, the "
            "first a letter or digit"
        )
    if name.casefold() in MANIFESTS or name.casefold().startswith(PAGE_FILE):
        raise InputError(f"task: {name!r} is the name of a file of fewfit's own; take another")
    return name


def _stamp(folder: Path) -> tuple[Any, ...]:
    """What changes when an artifact is replaced: it is written whole, in one rename."""
    kept = []
    for name in MANIFESTS:
        if (folder / name).is_file():
            state = (folder / name).stat()
            kept.append((name, state.st_ino, state.st_mtime_ns, state.st_size))
    return tuple(kept)
