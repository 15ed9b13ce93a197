"""Learnt prompts against what they are made of: a cache, peft's classes, one another."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch
from peft.tuners.cpt.model import CPTEmbedding

from fewfit.compare import TuningRow, compare
from fewfit.errors import CapabilityError
from fewfit.tuning import Data, Objective, Recipe, Run, learn, make_method
from fewfit.tuning.prompts.context import TEMPLATE, TEXT
from fewfit.tuning.prompts.dept import Decomposed
from tests.tuning_models import checkpoint, example, trunk

TEXTS = ("the movie was fun", "not good", "so dull", "really awful film")
ROWS = [[example(text, k % 3)] for k, text in enumerate(TEXTS)]
SHORT = Recipe(steps=3, batch_size=2, dropout=False, learning_rate=0.05, optimizer="adamw")


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@torch.no_grad()
def test_what_is_made_of_a_text_serves_all_tokens_that_are_generated_behind_it(name):
    base = trunk(name, dropout=0.0)
    adapter = make_method("iapt", {"m": 3, "r": 4}).build(base, 0)
    for parameter in adapter.parameters():
        parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    item = base.encoder.encode(ROWS[0][0])
    said = [7, 9, 11, 13]

    def inputs(n):
        batch = base.pack([item._replace(choices=[said[: n + 1]], answer=0)])
        return adapter.rewrite(batch, base).inputs

    with adapter.on(base.network):
        whole = base.network(**inputs(3), use_cache=False).logits[0]
        given = inputs(0)
        out = base.network(**given, use_cache=True)
        behind, position = [out.logits[0, -1]], given["position_ids"][:, -1:]
        for token in said[:3]:
            position = position + 1
            out = base.network(
                input_ids=torch.tensor([[token]]),
                position_ids=position,
                past_key_values=out.past_key_values,
                use_cache=True,
            )
            behind.append(out.logits[0, -1])
    assert torch.allclose(torch.stack(behind), whole[-4:], atol=1e-5)
    # and a new text of one token is not taken for one that is generated
    short = item._replace(before=item.before[:1], choices=[said[:1]], answer=0)
    with adapter.on(base.network):
        first = base.network(**adapter.rewrite(base.pack([short]), base).inputs).logits
        adapter.rewrite(base.pack([item]), base)
        again = base.network(**adapter.rewrite(base.pack([short]), base).inputs).logits
    assert torch.equal(first, again)


def test_ept_whose_additions_are_frozen_is_trained_as_dept():
    base = trunk("bert", dropout=0.0)
    options = {"m": 3, "r": 2, "offset_rate": 1.0}
    ept = make_method("ept", {**options, "spaces": 2}).build(base, 5)
    parts = {name: getattr(ept, name) for name in "PAB"}
    ept.parts = lambda network: parts
    ept.groups = lambda: Decomposed.groups(ept)
    objective = Objective()
    learn(base, ept, ROWS, lambda tokens, rows, step: objective(tokens), Run(SHORT, 5), SHORT)
    dept = make_method("dept", options).fit(base, Data(ROWS), Run(SHORT, 5))
    fresh = make_method("dept", options).build(base, 5)
    for name in "PAB":
        assert torch.equal(getattr(ept, name), getattr(dept, name))
        assert not torch.equal(getattr(ept, name), getattr(fresh, name))


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_the_loss_and_the_ball_of_peft_s_cpt(decay):
    base = trunk("llama", dropout=0.0)
    method = make_method("cpt", {"k": 1, "eps": 0.3, "eps_template": 0.1, "decay": decay})
    adapter = method.fit(base, Data(ROWS), Run(SHORT, 2))
    item = base.encoder.encode(ROWS[0][0], only_answer=True)
    with adapter.on(base.network):
        batch = adapter.rewrite(base.pack([item]), base)
        ours = method._loss(base, adapter)(base.read(batch)[0], [0], 0)
    # theirs reads context and row in one go
    shown, own, said = adapter.label.tolist(), item.before, list(item.choices[0])
    ids = torch.tensor([[*adapter.ids.tolist(), *own, *said]])
    last = 4 * (max(shown) + 1)
    kinds = [4 * i if i > 0 else 0 for i in shown] + [0] * len(own) + [last] * len(said)
    types = torch.tensor([kinds])
    embedded = base.network.get_input_embeddings()(ids)
    embedded = torch.cat([adapter.vectors()[None], embedded[:, len(shown) :]], 1)
    output = base.network(inputs_embeds=embedded)
    labels = torch.where(types > 0, ids, -100)
    config = SimpleNamespace(opt_loss_decay_factor=decay, opt_weighted_loss_type="decay")
    theirs = CPTEmbedding.calculate_loss(output, labels, types, config).loss
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    # their projection of a step that leads out of the ball
    free = adapter.free
    types = {TEXT: 2, TEMPLATE: 1}
    told = SimpleNamespace(
        num_virtual_tokens=len(shown),
        token_dim=embedded.shape[2],
        cpt_token_ids=adapter.ids.tolist(),
        cpt_tokens_type_mask=[types.get(kind, 0) for kind in shown],
        opt_projection_epsilon=0.3,
        opt_projection_format_epsilon=0.1,
        inference_mode=False,
    )
    peer = CPTEmbedding(told, base.network.get_input_embeddings())
    step = torch.randn(len(free), embedded.shape[2], generator=torch.Generator().manual_seed(0))
    step[::2] *= 1e-3  # these stay inside
    peer.delta_embedding.weight.data = step.clone()
    with torch.no_grad():
        adapter.delta.copy_(step[free])
    adapter.after_step()
    expected = peer.get_projection()
    assert torch.allclose(adapter.delta, expected[free], atol=1e-6)
    assert float(expected[~free].norm(dim=1).max()) < 1e-9


def test_a_model_of_another_kind_is_refused_before_anything_is_trained(tmp_path):
    rows = {"t-few": TuningRow("t-few", {"steps": 1}), "cpt": TuningRow("cpt", {"k": 1})}
    masked, causal = (f"hf:{checkpoint(tmp_path / name, name)}" for name in ("bert", "gpt2"))
    told = tmp_path / "gpt2" / "tokenizer_config.json"
    template = {"chat_template": "{{ messages[-1]['content'] }}"}
    told.write_text(json.dumps(json.loads(told.read_text()) | template))
    for model, message in (
        (masked, r"cpt is for \['causal'\] models, and .* is masked"),
        (f"{causal}?chat=true", "t-few reads prompts without a chat's template, and .*chat=true"),
    ):
        with pytest.raises(CapabilityError, match=message):
            compare(
                *(TEXTS, ["pos", "neg", "neg", "neg"], ["a great film", "so so"], ["pos", "neg"]),
                template="{text} it was {mask}",
                labels={"neg": "awful", "pos": "good"},
                methods=rows,
                models=[model],
                shots=[1],
                seeds=1,
                store=None,
                output=tmp_path / "cells",
            )
    assert not list((tmp_path / "cells").glob("**/*")), "nothing was trained"
