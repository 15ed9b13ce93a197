from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewfit.decoders.ipet import distillation_loss as distillation_loss_on_arrays
from fewfit.errors import InputError
from fewfit.tuning import (
    IA3,
    Objective,
    TokenLogProbs,
    distillation_loss,
    language_model_loss,
    length_normalised_loss,
    rank,
    ranked,
    site_map,
    unlikelihood_loss,
)
from fewfit.tuning.choices import Encoded
from tests.tuning_models import ARCHITECTURES, EXAMPLES, example, kind, trunk


def tokens(*examples: list[list[float]], answers: list[int] | None = None) -> TokenLogProbs:
    """From probabilities of tokens, choice by choice; the answer is the first one by default."""
    flat = [(b, c, choice) for b, item in enumerate(examples) for c, choice in enumerate(item)]
    answers = answers or [0] * len(examples)
    return TokenLogProbs(
        torch.tensor([math.log(p) for *_, choice in flat for p in choice], requires_grad=True),
        torch.tensor([i for i, (*_, choice) in enumerate(flat) for _ in choice]),
        torch.tensor([b for b, *_ in flat]),
        torch.tensor([c == answers[b] for b, c, _ in flat]),
    )


CARD = [[0.6, 0.5], [0.35], [0.5] * 4]


def test_the_losses_of_the_worked_example():
    batch = tokens(CARD)
    assert language_model_loss(batch).item() == pytest.approx(0.601986, abs=2e-6)
    assert length_normalised_loss(batch).item() == pytest.approx(0.936831, abs=2e-6)
    assert unlikelihood_loss(batch).item() == pytest.approx(0.640674, abs=2e-6)
    assert unlikelihood_loss(batch, reference=True).item() == pytest.approx(0.607848, abs=2e-6)
    total = 0.601986 + 0.936831 + 0.640674
    assert Objective()(batch).item() == pytest.approx(total, abs=5e-6)
    assert Objective(False, False)(batch).item() == pytest.approx(0.601986, abs=2e-6)


def test_the_reference_constant_counts_empty_cells_and_has_no_gradient():
    batch = tokens(CARD)
    constant = 7 * math.log(1.01) / 5
    loss = unlikelihood_loss(batch, reference=True)
    assert loss.item() + constant == pytest.approx(0.621779, abs=2e-6)
    (gradient,) = torch.autograd.grad(loss, batch.log_probs)
    p = batch.log_probs.detach().exp()
    expected = torch.where(torch.arange(7) < 2, 0.0, p / (1 - p + 0.01) / 5)
    assert torch.allclose(gradient, expected, atol=1e-6)


def test_normalising_by_length_changes_the_winner():
    batch = tokens(CARD)
    assert rank(batch).tolist() == [0]
    assert rank(batch, normalise=False).tolist() == [1]
    assert batch.beta.tolist() == pytest.approx([-0.6020, -1.0498, -0.6931], abs=1e-4)


def test_a_batch_is_the_mean_of_its_examples_whatever_their_numbers_of_choices():
    other = [[0.2, 0.9, 0.4], [0.7]]
    for loss in (language_model_loss, unlikelihood_loss, length_normalised_loss):
        alone = [loss(tokens(item)).item() for item in (CARD, other)]
        assert loss(tokens(CARD, other)).item() == pytest.approx(sum(alone) / 2, rel=1e-5)
    by_token = language_model_loss(tokens(CARD, other), reference=True).item()
    logs = [math.log(p) for p in (0.6, 0.5, 0.2, 0.9, 0.4)]
    assert by_token == pytest.approx(-sum(logs) / 5, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.floats(0.02, 0.98), min_size=1, max_size=4), min_size=2, max_size=5),
    st.randoms(use_true_random=False),
)
def test_the_order_of_choices_does_not_matter(choices, random):
    order = list(range(len(choices)))
    random.shuffle(order)
    straight = tokens(choices)
    shuffled = tokens([choices[i] for i in order], answers=[order.index(0)])
    for reference in (False, True):
        loss = Objective(reference=reference)
        assert loss(straight).item() == pytest.approx(loss(shuffled).item(), rel=1e-4, abs=1e-5)


def test_the_gradient_of_the_length_normalised_loss_is_softmax_minus_one_hot():
    batch = tokens(CARD)
    (gradient,) = torch.autograd.grad(length_normalised_loss(batch), batch.log_probs)
    beta = batch.beta.detach()
    expected = beta.softmax(0) - torch.tensor([1.0, 0, 0])
    per_choice = torch.zeros(3).index_add(0, batch.choice, gradient)
    assert torch.allclose(per_choice, expected, atol=1e-6)


def test_a_certain_wrong_token_gives_a_finite_loss_and_gradient():
    batch = tokens([[0.5], [1.0]])
    loss = Objective()(batch)
    (gradient,) = torch.autograd.grad(loss, batch.log_probs)
    assert math.isfinite(loss.item())
    assert torch.isfinite(gradient).all()


def slope_of(batch: TokenLogProbs, teacher: torch.Tensor, T: float) -> torch.Tensor:
    """The gradient of the distillation loss by each beta."""
    loss = distillation_loss(batch, teacher, temperature=T)
    (gradient,) = torch.autograd.grad(loss, batch.log_probs)
    return torch.zeros(len(batch.example)).index_add(0, batch.choice, gradient)


def test_soft_labels_are_learnt_up_to_a_constant_of_the_example():
    batch = tokens(CARD, [[0.2, 0.9], [0.7], [0.1, 0.2, 0.3]])
    beta = batch.beta.detach().view(2, 3)
    same = beta + torch.tensor([[7.0], [-2.0]])
    assert distillation_loss(batch, same, temperature=2.0).item() == pytest.approx(0, abs=1e-6)
    assert slope_of(batch, same, 2.0).abs().max() < 1e-6
    other = same + torch.tensor([0.0, 0.1, 0.0])
    assert distillation_loss(batch, other, temperature=2.0).item() > 1e-4
    teacher = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 0.0]])
    for T in (1.0, 2.0, 8.0):
        value, slope = distillation_loss_on_arrays(beta.numpy(), teacher.numpy(), T)
        found = distillation_loss(batch, teacher, temperature=T).item()
        assert found == pytest.approx(value, rel=1e-4)
        assert torch.allclose(
            slope_of(batch, teacher, T).view(2, 3), torch.tensor(slope), atol=1e-6
        )


def test_a_higher_temperature_does_not_take_the_slope_away():
    batch = tokens([[0.30], [0.31], [0.29]])  # nearly equal, where softmax is nearly linear
    teacher = torch.tensor([[0.0, 0.02, 0.01]])
    sizes = [slope_of(batch, teacher, T).abs().max().item() for T in (2.0, 4.0)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.02)  # not a quarter


def test_hard_labels_are_the_limit_of_soft_ones():
    batch = tokens(CARD, CARD, answers=[0, 2])
    teacher = torch.tensor([[1e4, 0, 0], [0, 0, 1e4]])
    found = distillation_loss(batch, teacher, temperature=1.0).item()
    assert found == pytest.approx(length_normalised_loss(batch).item(), rel=1e-5)


def test_soft_labels_have_one_number_for_each_choice():
    for teacher, batch in ((torch.zeros(1, 2), tokens(CARD)), (torch.zeros(2, 3), tokens(CARD))):
        with pytest.raises(InputError, match="soft labels of shape"):
            distillation_loss(batch, teacher, temperature=1.0)
    with pytest.raises(InputError, match=r"\(2, 3\) for 2 examples with 5 choices"):
        distillation_loss(tokens(CARD, CARD[:2]), torch.zeros(2, 3), temperature=1.0)


def test_an_example_needs_exactly_one_answer():
    with pytest.raises(InputError, match="exactly one correct choice"):
        length_normalised_loss(tokens([[0.5], [0.4]], answers=[7]))


def one_by_one(name: str, item: Encoded) -> list[float]:
    """Log-probabilities of every choice token, from the bare network, one choice at a time."""
    model = trunk(name).network
    found: list[float] = []
    for choice in item.choices:
        if kind(name) == "seq2seq":
            given = {
                "input_ids": torch.tensor([item.before]),
                "decoder_input_ids": torch.tensor([[0, *choice[:-1]]]),
            }
            where = range(len(choice))
        elif kind(name) == "causal":
            given = {"input_ids": torch.tensor([[*item.before, *choice]])}
            where = range(len(item.before) - 1, len(item.before) + len(choice) - 1)
        else:
            given = {"input_ids": torch.tensor([[*item.before, *[4] * len(choice), *item.after]])}
            where = range(len(item.before), len(item.before) + len(choice))
        with torch.inference_mode():
            rows = model(**given).logits[0, list(where)].log_softmax(-1)
        found += rows[torch.arange(len(choice)), torch.tensor(choice)].tolist()
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_choices_are_read_as_if_each_were_alone(name):
    trunk_ = trunk(name)
    encoded = [trunk_.encoder.encode(item) for item in EXAMPLES]
    with torch.inference_mode():
        together, hidden = trunk_.read(trunk_.pack(encoded))
    expected = [value for item in encoded for value in one_by_one(name, item)]
    assert together.log_probs.tolist() == pytest.approx(expected, abs=2e-5)
    assert hidden.shape == (4, 16)
    assert together.grid(together.beta).shape == (4, 4)
    # another row of padding, another company: nothing changes
    longer = trunk_.encoder.encode(example("the " * 20, 0, ("very " * 9, "a")))
    with torch.inference_mode():
        padded, _ = trunk_.read(trunk_.pack([*encoded, longer]))
    n = len(together.log_probs)
    assert torch.allclose(padded.log_probs[:n], together.log_probs, atol=2e-5)


def test_the_encoder_runs_once_per_example_and_cross_attention_reads_it_once():
    trunk_ = trunk()
    seen: dict[str, list[torch.Size]] = {}
    for path in ("encoder.block.0", "decoder.block.0.layer.1.EncDecAttention.k", "lm_head"):

        def note(_, args, path=path):
            seen.setdefault(path, []).append(args[0].shape)

        trunk_.network.get_submodule(path).register_forward_pre_hook(note)
    encoded = [trunk_.encoder.encode(item) for item in EXAMPLES]
    batch = trunk_.pack(encoded)
    trunk_.read(batch)
    rows = {path: [shape[0] for shape in shapes] for path, shapes in seen.items()}
    assert rows["encoder.block.0"] == [4]
    assert rows["decoder.block.0.layer.1.EncDecAttention.k"] == [4]
    assert seen["lm_head"][0][:2] == (1, len(batch.targets))  # no padding reaches the head


def test_frozen_linear_layers_keep_no_input_for_the_backward_pass():
    """Training the vectors saves far less than training the weights would."""
    trunk_ = trunk(dropout=0.0)
    batch = trunk_.pack([trunk_.encoder.encode(item) for item in EXAMPLES])

    def saved() -> int:
        parameters = {p.data_ptr() for p in trunk_.network.parameters()}
        kept: dict[int, int] = {}

        def pack(x):
            if x.data_ptr() not in parameters:
                kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            loss = Objective()(trunk_.read(batch)[0])
        assert loss.requires_grad
        return sum(kept.values())

    vectors = IA3(site_map(trunk_.network)).attach(trunk_.network)
    frozen = saved()
    vectors.detach()
    trunk_.network.requires_grad_(True)
    assert frozen < 0.95 * saved()


def test_only_the_answer_is_read_where_wrong_choices_do_not_matter():
    trunk_ = trunk()
    full = [trunk_.encoder.encode(item) for item in EXAMPLES]
    alone = [trunk_.encoder.encode(item, only_answer=True) for item in EXAMPLES]
    with torch.inference_mode():
        a = Objective(False, False)(trunk_.read(trunk_.pack(full))[0])
        b = Objective(False, False)(trunk_.read(trunk_.pack(alone))[0])
    assert a.item() == pytest.approx(b.item(), abs=1e-5)
    assert [len(item.choices) for item in alone] == [1] * 4


def test_mixed_tasks_are_ranked_as_each_would_be_alone():
    trunk_ = trunk()
    vectors = IA3(site_map(trunk_.network), n_tasks=2).attach(trunk_.network)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for vector in vectors.vectors:
            vector.copy_(3 * torch.randn(vector.shape, generator=generator))
    texts = ["so dull", "the movie was fun", "very good", "awful", "not so great", "a film"]
    alone = [
        ranked(trunk_, [example(text, 0, task=task) for text in texts], vectors=vectors)
        for task in (0, 1)
    ]
    mixed = [example(text, 0, task=i % 2) for i, text in enumerate(texts)]
    found = ranked(trunk_, mixed, vectors=vectors, batch_size=4)
    assert found == [alone[i % 2][i] for i in range(6)]
    assert alone[0] != alone[1]
