"""A base model that is loaded for tuning: its positions hold, and its padding has a row."""

from __future__ import annotations

import pytest
import torch

from fewfit.tuning import Trunk
from tests.hf_checkpoints import build
from tests.tuning_models import example


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2"])
def test_a_prompt_is_cut_to_the_positions_that_there_are(name, tmp_path):
    trunk = Trunk.load(str(build(name, tmp_path, positions=32)))
    item = trunk.encoder.encode(example("great fun " * 200, 0, ("great", "very bad")))
    assert item.truncated
    with torch.inference_mode():
        tokens, _ = trunk.read(trunk.pack([item]))
    assert torch.isfinite(tokens.beta).all()
    assert trunk.identity["max_tokens"] == "256", "what was asked for names the artifact"


def test_a_model_of_relative_positions_reads_as_far_as_it_is_told(tmp_path):
    trunk = Trunk.load(str(build("t5", tmp_path, positions=32)), max_tokens=100)
    item = trunk.encoder.encode(example("great fun " * 200, 0, ("great", "bad")))
    assert len(item.before) > 90
