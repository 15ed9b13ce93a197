"""One bar for all that can show one."""

from __future__ import annotations

import time

import pytest

from fewfit.cli.output import bar as of_commands
from fewfit.compare import compare
from fewfit.errors import InputError
from fewfit.progress import bar, showing

TEXTS, Y = ["so good", "quite bad", "good good", "bad and worse"], ["pos", "neg"] * 2


def test_a_bar_ends_full_but_for_an_error(capsys):
    with bar("asking", 5) as told:
        told(2)
    assert "asking: 100%" in capsys.readouterr().err
    with bar("asking", 5) as told:
        time.sleep(0.11)  # after which tqdm shows it again
        told(8)
    assert "asking: 8prompt" not in capsys.readouterr().err, "what calibrates comes on top"
    with pytest.raises(TypeError), bar("asking", 5) as told:
        told("two")  # pyright: ignore[reportArgumentType]
    assert "5/5" not in capsys.readouterr().err


def test_a_command_shows_it_in_a_terminal_only(capsys):
    with of_commands("asking", 5, "prompt") as told:
        told(5)
    assert capsys.readouterr().err == ""


def test_a_comparison_shows_a_bar_for_each_phase(capsys):
    options = {"models": ["fake"], "shots": [1], "seeds": 1, "store": None, "methods": ["dect"]}
    options["drop_overlap"] = True
    compare(TEXTS, Y, ["well good", "well bad"], ["pos", "neg"], progress=True, **options)
    shown = capsys.readouterr().err
    assert "asking fake: 100%" in shown
    compare(TEXTS, Y, ["well good", "well bad"], ["pos", "neg"], **options)
    assert capsys.readouterr().err == ""


def test_what_is_no_progress_is_refused():
    with pytest.raises(InputError, match="expected True, or a function"), showing(1, 5):
        pass
