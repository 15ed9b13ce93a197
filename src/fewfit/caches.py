"""Where files are kept that can be made or fetched again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fewfit.errors import StoreError


def cache_folder() -> Path:
    """Return ``$FEWFIT_CACHE`` if it is set, else a folder in the platform's for caches.

    Raises
    ------
    StoreError
        If there is neither a ``$FEWFIT_CACHE`` nor a home folder.
    """
    named = os.environ.get("FEWFIT_CACHE")
    try:
        if named:
            return Path(named).expanduser()
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            return (Path(local) if local else Path.home() / "AppData/Local") / "fewfit"
        if sys.platform == "darwin":
            return Path.home() / "Library/Caches/fewfit"
        cache = os.environ.get("XDG_CACHE_HOME")
        return (Path(cache) if cache else Path.home() / ".cache") / "fewfit"
    except RuntimeError as error:
        raise StoreError(
            "there is no home folder to keep the model's answers in; name a folder in "
            "$FEWFIT_CACHE, or a store, or keep nothing (store=None, --store none)"
        ) from error
