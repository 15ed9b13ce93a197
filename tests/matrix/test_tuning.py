"""What every tuning method promises: one matrix over all, entered by a line in the table."""

from __future__ import annotations

import functools
import zlib

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

from fewfit.errors import InputError
from fewfit.testing.tuning import (
    TUNING_CHECKS,
    TuningCase,
    check_half_precision,
    check_resumed,
    check_tensors,
)
from fewfit.tuning import ENTRIES, make_method
from tests.tuning_models import ARCHITECTURES, kind, trunk

SMALL = {
    "apt": {"n": 4, "r": 2},
    "cpt": {"k": 1, "eps": 10.0},
    "dept": {"m": 3, "r": 2, "offset_rate": 1.0},
    "diff-pruning": {"budget": 50},
    "dsee": {"rank": 2, "n": 5, "prune": 0.3, "structured": True},
    "ept": {"m": 3, "r": 2, "fusion": 2, "spaces": 2, "width": 2, "offset_rate": 1.0},
    "mam": {"l": 3, "r": 4},
    "hft": {"rounds": 2},
    "swr": {"share": 0.5},
    "fish": {"budget": 50},
    "gradient-mask": {"budget": 50, "layer_decay": 0.5},
    "gradual-unfreezing": {"every": 2},
    "iapt": {"m": 2, "r": 4},
    "ipet": {"repetitions": 2, "generations": 1},
    "ladder": {"reduction": 4},
    "list": {"sessions": 1, "r": 4},
    "lora": {"rank": 2},
    "lt-sft": {"budget": 50},
    "magnitude-mask": {"budget": 50},
    "panda": {"m": 3, "weight": 1.0},
    "parallel-adapter": {"r": 4},
    "peft": {"tuner": "lokr"},
    "pet": {"repetitions": 1, "adapter": "parallel-adapter", "adapter_options": {"r": 4}},
    "prefix-tuning": {"m": 3},
    "promot": {"m": 3, "adapter_options": {"rank": 2}},
    "prompt-tuning": {"m": 3},
    "ptec": {"m": 3},
    "random-mask": {"budget": 50},
    "series-adapter": {"r": 4},
}
"""Options with which a method is fast."""

REFUSED = {
    ("bitfit", "t5-gated"): "no bias",
    ("bitfit", "t5-ungated"): "no bias",
    ("bitfit", "llama"): "no bias",
    **{("cpt", a): "is for" for a in ARCHITECTURES if kind(a) != "causal"},
    ("peft", "gpt2"): "refuses it",
}
"""What cannot be, and what is said then."""

NETWORKS = [(n, a) for n in ENTRIES for a in ARCHITECTURES if (n, a) not in REFUSED]

TRAINED = (check_tensors, check_resumed, check_half_precision)
"""What is asked of a method's training: it is tried on one network of each kind, not on all."""


def of_each_kind(name: str) -> list[str]:
    """One architecture of each kind, another for another method, so that all have their turn."""
    kinds: dict[str, list[str]] = {}
    for method, architecture in NETWORKS:
        if method == name:
            kinds.setdefault(kind(architecture), []).append(architecture)
    return [found[zlib.crc32(name.encode()) % len(found)] for found in kinds.values()]


CASES = [
    (check, name, architecture)
    for name, architecture in NETWORKS
    for check in TUNING_CHECKS
    if check not in TRAINED or architecture in of_each_kind(name)
]


@functools.lru_cache(1)  # its checks come one after the other
def case(name: str, architecture: str) -> TuningCase:
    method = make_method(name, SMALL.get(name))
    return TuningCase(method, lambda: trunk(architecture, dropout=0.0).reads(method.reading))


@pytest.mark.parametrize(
    ("check", "name", "architecture"), CASES, ids=lambda part: getattr(part, "__name__", part)
)
def test_what_is_checked_of_anyones_method(check, name, architecture):
    check(case(name, architecture))


@pytest.mark.parametrize(("name", "architecture"), REFUSED)
def test_what_has_no_place_in_a_network_is_refused_in_words(name, architecture):
    base = trunk(architecture)
    modules = [type(m) for m in base.network.modules()]
    with pytest.raises(InputError, match=REFUSED[name, architecture]):
        make_method(name, SMALL.get(name)).build(base, 0)
    assert [type(m) for m in base.network.modules()] == modules
    assert not any(p.requires_grad for p in base.network.parameters())
