"""Tables of what can be named: a room's own entries, and those of installed packages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from fewfit.errors import InputError


class Registry(Mapping[str, Any]):
    """Name -> class or function, imported when it is looked up.

    The room's own entries come first, and their names cannot be taken. Other packages add to a
    table by an entry point, so by being installed; what a file or an artifact says is only ever
    looked up here, never imported.

    Parameters
    ----------
    room : str
        The package that the entries are relative to, for example ``"fewfit.decoders"``; the group
        of the entry points has the same name.
    entries : mapping of str to str
        Name -> ``"module:attribute"``, the module relative to `room`.

    Raises
    ------
    KeyError
        On looking up what is not in the table.
    InputError
        If the package behind an entry point cannot be imported.
    """

    def __init__(self, room: str, entries: Mapping[str, str]) -> None:
        self.room = room
        self.entries = dict(entries)

    @cached_property
    def _installed(self) -> dict[str, EntryPoint]:
        found = {point.name: point for point in entry_points(group=self.room)}
        return {name: found[name] for name in sorted(found) if name not in self.entries}

    def __getitem__(self, name: str) -> Any:
        if name in self.entries:
            module, _, attribute = self.entries[name].partition(":")
            return getattr(import_module(f"{self.room}.{module}"), attribute)
        point = self._installed[name]
        try:
            return point.load()
        except Exception as error:  # whatever a stranger's package raises while it is imported
            where = point.dist.name if point.dist is not None else point.value
            raise InputError(
                f"{name!r} of the installed package {where} cannot be imported: {error}"
            ) from error

    def __iter__(self) -> Iterator[str]:
        yield from self.entries
        yield from self._installed

    def __len__(self) -> int:
        return len(self.entries) + len(self._installed)

    def __contains__(self, name: object) -> bool:
        return name in self.entries or name in self._installed
