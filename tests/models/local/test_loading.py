"""Loading leaves the process as it was found."""

from __future__ import annotations

import gc

import pytest

from fewfit.models.local.loading import uncollected


def fails() -> None:
    with uncollected():
        raise RuntimeError(gc.isenabled())


@pytest.mark.parametrize("on", [True, False])
def test_garbage_is_looked_for_again_as_it_was_before(on):
    was = gc.isenabled()
    (gc.enable if on else gc.disable)()
    try:
        with pytest.raises(RuntimeError, match="False"):
            fails()
        assert gc.isenabled() is on
    finally:
        (gc.enable if was else gc.disable)()
