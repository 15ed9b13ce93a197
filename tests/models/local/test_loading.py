"""Loading leaves the process as it was found, and says of a name no more than it may."""

from __future__ import annotations

import gc

import pytest

from fewfit.errors import InputError
from fewfit.models.local.loading import uncollected
from fewfit.models.local.specs import parse_spec


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


@pytest.mark.parametrize(
    "query", ["token=hf_abcdefghijklmnopqrst", "hf_abcdefghijklmnopqrst", "chat=hf_abcdefghijklmn"]
)
def test_what_is_typed_behind_a_name_is_not_repeated(query):
    with pytest.raises(InputError, match=r"behind 'owner/name\?'") as told:
        parse_spec(f"hf:owner/name?{query}", ("dtype", "chat"))
    assert "hf_abc" not in str(told.value)
