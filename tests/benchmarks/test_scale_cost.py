"""The arithmetic of docs/scale.md."""

from __future__ import annotations

import json

import pytest

from benchmarks import RESULTS, scale_cost
from fewfit.errors import InputError


def test_what_a_million_texts_cost_is_what_the_formulas_say():
    measured = {
        **{"cpu_ms_per_text": 10.0, "http_cpu_us": 200.0, "store_cpu_us": 100.0},
        **{"decode_cpu_us": 60.0, "answer_bytes": 2000.0, "embedded_answer_bytes": 500.0},
        "output_bytes": 10.0,
    }
    assumed = {
        **{"parameters": 1e9, "tokens": 100.0, "peak_flops": 1e14, "utilisation": 0.5},
        **{"price": 0.5, "chars": 90.0, "hidden": 64.0},
    }
    assert scale_cost.cost(10**6, measured, assumed) == pytest.approx(
        {
            "queries": 1e6,
            "CPU hours, embedded": 10_000 / 3600,  # 10 ms of each of a million texts
            "GPU hours": 2 * 1e11 * 1e6 / 5e13 / 3600,
            "CPU hours, asking": 360 / 3600,
            "store, bytes": 2e9,
            "store, bytes, embedded": 5e8,
            "output, bytes": 1e8,
            "price": 50.0,  # a hundred million tokens
        }
    )


def test_the_page_has_the_committed_figures_and_says_which_are_assumed():
    told = scale_cost.section(RESULTS / "scale_cost.json")
    page = scale_cost.PAGE.read_text(encoding="utf-8")
    assert scale_cost.page(told) == page
    content = json.loads((RESULTS / "scale_cost.json").read_text(encoding="utf-8"))
    assert content["assumed"] == scale_cost.ASSUMED
    assert not set(content["measured"]) & set(content["assumed"])
    for what in (*content["measured"], *content["assumed"]):
        assert f"`{what}` " in page


def test_an_assumption_that_nobody_makes_is_refused(capsys):
    with pytest.raises(InputError, match="'gpus' is not one of"):
        scale_cost.main(["--set", "gpus=3"])
    scale_cost.main(["--texts", "100", "--set", "price=3", "--set", "hidden=8"])
    assert "`price` 3," in capsys.readouterr().out
