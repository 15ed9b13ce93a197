"""Slots for a prompt's vectors in packed batches, and what is written there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import peft
import pytest
import torch

from fewfit.errors import InputError
from fewfit.tuning import Trunk, site_map
from fewfit.tuning.packing import ChoiceBatch, fill_slots
from tests.tuning_models import ARCHITECTURES, EXAMPLES, kind, trunk

WORDS = [7, 9, 11]
FRONT = len(WORDS)
WIDTH = 16


def batch_of(here: Trunk, front: int = 0, words: list[int] | None = None) -> ChoiceBatch:
    encoded = [here.encoder.encode(example) for example in EXAMPLES]
    if words is not None:
        lead = here.pack.first_slot
        encoded = [
            item._replace(before=[*item.before[:lead], *words, *item.before[lead:]])
            for item in encoded
        ]
    return replace(here.pack, front=front)(encoded)


def fill(here: Trunk, vectors: Any, front: int = FRONT) -> Any:
    path = site_map(here.network).select("embeddings")[0].module
    return fill_slots(here.network, here.pack, path, vectors, front)


@torch.no_grad()
def log_probs(here: Trunk, batch: ChoiceBatch) -> torch.Tensor:
    return here.read(batch)[0].log_probs


def embedded(here: Trunk, words: list[int]) -> torch.Tensor:
    return here.network.get_input_embeddings().weight[words].detach().clone()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_without_slots_the_batch_is_as_ever(name: str):
    here = trunk(name)
    plain, again = here.pack([here.encoder.encode(e) for e in EXAMPLES]), batch_of(here, 0)
    assert plain.slots == again.slots == (0, 0)
    assert plain.inputs.keys() == again.inputs.keys()
    assert all(torch.equal(plain.inputs[k], again.inputs[k]) for k in plain.inputs)
    assert torch.equal(plain.at, again.at)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_slots_with_the_vectors_of_tokens_are_these_tokens(name: str):
    here = trunk(name)
    want = log_probs(here, batch_of(here, words=WORDS))
    batch = batch_of(here, FRONT)
    lead = 1 if kind(name) == "masked" else 0
    assert batch.slots == (lead, lead + FRONT)
    handle = fill(here, embedded(here, WORDS))
    assert torch.equal(log_probs(here, batch), want)
    handle.remove()
    assert not torch.allclose(log_probs(here, batch), want, atol=1e-3)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_batch_with_slots_is_what_the_packer_makes_of_longer_prompts(name: str):
    here = trunk(name)
    slots, longer = batch_of(here, FRONT), batch_of(here, words=[here.pack.slot_id] * FRONT)
    assert here.pack.slot_id != here.pack.pad_id
    assert torch.equal(slots.at, longer.at)
    read = longer.inputs["input_ids"] != here.pack.pad_id
    for key, value in longer.inputs.items():
        if key == "position_ids":  # those of padding are of no account
            value = value.where(read, slots.inputs[key])
        assert torch.equal(slots.inputs[key], value), key
    for field in ("targets", "choice", "example", "correct", "tasks"):
        assert torch.equal(getattr(slots, field), getattr(longer, field))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_vectors_of_each_row_and_vectors_made_of_the_text(name: str):
    here = trunk(name)
    batch = batch_of(here, FRONT)
    rows = len(batch.inputs["input_ids"])
    vectors = torch.randn(rows, FRONT, WIDTH, generator=torch.Generator().manual_seed(1))
    handle = fill(here, vectors)
    together = log_probs(here, batch)
    handle.remove()
    handle = fill(here, lambda x: vectors[: len(x)] + 0 * x.mean())
    assert torch.allclose(log_probs(here, batch), together, atol=1e-5)
    handle.remove()
    handle = fill(here, vectors.flip(0))
    assert not torch.allclose(log_probs(here, batch), together, atol=1e-3)
    handle.remove()


def test_gradients_reach_the_vectors_and_not_the_embeddings():
    here = trunk("t5-gated")
    vectors = torch.nn.Parameter(torch.randn(FRONT, WIDTH))
    handle = fill(here, vectors)
    here.read(batch_of(here, FRONT))[0].log_probs.sum().backward()
    handle.remove()
    assert vectors.grad is not None
    assert (vectors.grad.abs().sum(1) > 0).all()
    assert all(p.grad is None for p in here.network.parameters())


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_a_batch_without_slots_or_with_slots_twice_is_refused(name: str):
    here = trunk(name)
    handle = fill(here, torch.zeros(FRONT, WIDTH))
    with pytest.raises(InputError, match="slots: the network reads rows that do not have 3"):
        log_probs(here, batch_of(here))
    handle.remove()
    with pytest.raises(InputError, match="slots: 2 asked for in a batch that has 3"):
        here.pack.with_slots(batch_of(here, FRONT), 2)
    with pytest.raises(InputError, match="slots: -1 asked for"):
        batch_of(here, -1)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft 0.21
@pytest.mark.parametrize("name", ["llama", "gpt2", "t5-gated"])
@torch.no_grad()
def test_the_numbers_of_pefts_prompt_tuning_choice_by_choice(name: str):
    here, there = trunk(name), trunk(name)
    task = "SEQ_2_SEQ_LM" if kind(name) == "seq2seq" else "CAUSAL_LM"
    config = peft.PromptTuningConfig(
        task_type=task, num_virtual_tokens=FRONT, num_transformer_submodules=1
    )
    theirs: Any = peft.get_peft_model(there.network, config).eval()
    weight = theirs.prompt_encoder["default"].embedding.weight
    weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    handle = fill(here, weight.clone())
    got = log_probs(here, batch_of(here, FRONT))
    handle.remove()
    want: list[float] = []
    for item in (here.encoder.encode(example) for example in EXAMPLES):
        for choice in item.choices:
            if task == "CAUSAL_LM":
                ids, start = [*item.before, *choice], FRONT + len(item.before) - 1
                logits = theirs(input_ids=torch.tensor([ids])).logits[0]
            else:
                before, labels, start = torch.tensor([item.before]), torch.tensor([choice]), 0
                mask = torch.ones_like(before)
                logits = theirs(input_ids=before, attention_mask=mask, labels=labels).logits[0]
            each = logits.log_softmax(-1)
            want += [float(each[start + t, token]) for t, token in enumerate(choice)]
    assert torch.allclose(got, torch.tensor(want), atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_the_head_reads_a_position_once_however_many_choices_have_their_first_token_there(
    name: str,
):
    here = trunk(name).reads("words")
    batch = here.pack([here.encoder.encode(e) for e in EXAMPLES])
    rows: list[int] = []
    head = here.network.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, args, __: rows.append(args[0][..., 0].numel()))
    try:
        tokens, hidden = here.read(batch)
    finally:
        handle.remove()
    assert rows == [len(set(zip(*batch.at.tolist(), strict=True)))]
    alone = [here.read(here.pack([here.encoder.encode(e)])) for e in EXAMPLES]
    together = torch.cat([one.log_probs for one, _ in alone])
    assert torch.allclose(tokens.log_probs, together, atol=1e-5)
    assert torch.allclose(hidden, torch.cat([state for _, state in alone]), atol=1e-5)
