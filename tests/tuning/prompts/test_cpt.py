"""CPT: what is moved how far, and what a row reads of a context that it is in."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch

from fewfit.prompts import InContext, Template
from fewfit.testing.tuning import TuningCase, check_resumed, check_saved
from fewfit.tuning import ChoiceExample, Data, Recipe, Run, make_method
from fewfit.tuning.prompts.context import SEPARATOR, TEMPLATE, TEXT
from tests.tuning_models import example, trunk

TEXTS = ("the movie was fun", "not good", "so dull", "really awful film")
ROWS = [[example(text, k % 3)] for k, text in enumerate(TEXTS)]
SHORT = Recipe(steps=3, batch_size=2, dropout=False, learning_rate=0.05, optimizer="adamw")
CHOICES = ("great", "not so bad", "really awful")


def fitted(base, rows=ROWS, **options):
    return make_method("cpt", {"k": 1, **options}).fit(base, Data(rows), Run(SHORT, 2))


def context(base, rows, **options):
    return make_method("cpt", {"k": 9, **options}).context(base, rows, 0)


@pytest.mark.parametrize("reading", ["answers", "words"])
def test_tokens_are_the_text_s_the_template_s_or_the_label_s(reading):
    base = trunk("llama").reads(reading)
    template = Template("is {title} , {text} about sport ? {mask}")
    prompt = template.render({"title": "the film", "text": "about sport ?"})
    ids, kinds = context(base, [[ChoiceExample(prompt, CHOICES, 0)]])
    said = base.tokenizer.convert_ids_to_tokens(ids)
    assert " ".join(said[:11]) == "is the film , about sport ? about sport ? great"
    t, u = TEMPLATE, TEXT
    assert kinds[:11] == [t, u, u, t, u, u, u, t, t, t, 1]
    assert set(kinds[11:]) <= {1, SEPARATOR}
    # a text that was cut
    long = template.render({"title": "the film", "text": "so dull " * 40})
    ids, kinds = context(base, [[ChoiceExample(long, CHOICES, 0)]])
    said = base.tokenizer.convert_ids_to_tokens(ids)
    assert len(said) < 40
    own = {"the", "film", "so", "dull"}
    at = said.index("?") + 1
    assert [kind == TEXT for kind in kinds[:at]] == [word in own for word in said[:at]]


def test_texts_and_templates_have_each_a_radius():
    base = trunk("llama", dropout=0.0)
    scale = math.sqrt(16 / 2048)
    adapter = fitted(base, eps=0.3, eps_template=0.05)
    norms = adapter.delta.detach().norm(dim=1)
    text, template = (norms[adapter.label[adapter.free] == kind] for kind in (TEXT, TEMPLATE))
    assert len(text) + len(template) == len(norms)
    assert float(text.max()) == pytest.approx(0.3 * scale, rel=1e-5)
    assert float(template.max()) == pytest.approx(0.05 * scale, rel=1e-5)
    still = fitted(base, eps=0.3, eps_template=0.0)
    assert not still.delta[still.label[still.free] == TEMPLATE].any()
    assert still.delta[still.label[still.free] == TEXT].any()
    one, same = fitted(base, eps=0.3), fitted(base, eps=0.3, eps_template=0.3)
    assert torch.equal(one.delta, same.delta)


def by_hand(base, adapter, item, gone=()) -> list[float]:
    """Log-probabilities of the choice behind the context without some tokens; none is masked."""
    kept = [i for i in range(len(adapter.ids)) if i not in gone]
    said = list(item.choices[0])
    embed = base.network.get_input_embeddings()
    own = embed(torch.tensor([*item.before, *said]))
    with torch.no_grad():
        whole = torch.cat([adapter.vectors()[kept], own])[None]
        log_p = base.network(inputs_embeds=whole).logits[0].log_softmax(1)
    first = len(kept) + len(item.before) - 1
    return [float(log_p[first + t, token]) for t, token in enumerate(said)]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_row_reads_all_of_the_context_but_itself(name):
    base = trunk(name, dropout=0.0)
    adapter = fitted(base, eps=10.0)
    encoded = [[base.encoder.encode(row[0], only_answer=True)] for row in ROWS]
    items = [row[0] for row in encoded]
    ids = adapter.ids.tolist()
    spans = {}
    for row, item in enumerate(items):
        shown = [*item.before, *item.choices[0]]
        found = [i for i in range(len(ids)) if ids[i : i + len(shown)] == shown]
        if found:
            spans[row] = range(found[0], found[0] + len(shown))
    assert len(spans) == 3, "one of each class, and a fourth row that is not in it"

    def read():
        batch = adapter.rewrite(base.pack(items), base)
        return base.read(batch)[0].log_probs.tolist()

    whole = [p for item in items for p in by_hand(base, adapter, item)]
    without = [
        p for i, item in enumerate(items) for p in by_hand(base, adapter, item, spans.get(i, ()))
    ]
    with adapter.on(base.network):
        with adapter.blind(encoded):
            assert read() == pytest.approx(without, abs=1e-4)
            with torch.no_grad():
                assert read() == pytest.approx(whole, abs=1e-4), "as when it is asked"
        assert read() == pytest.approx(whole, abs=1e-4)
    assert without != pytest.approx(whole, abs=1e-2)


def test_no_wording_of_a_row_and_no_other_row_of_its_text_gives_it_away():
    base = trunk("gpt2", dropout=0.0)
    prompt = Template("is it so ? {text} {mask}").render({"text": "so dull"})
    rows = [[example("so dull", 0), ChoiceExample(prompt, CHOICES, 0)], [example("so dull", 1)]]
    adapter = fitted(base, rows, eps=10.0)
    encoded = [[base.encoder.encode(item, only_answer=True) for item in row] for row in rows]
    for item in (encoded[0][0], encoded[0][1], encoded[1][0]):
        alone = by_hand(base, adapter, item, range(len(adapter.ids)))
        with adapter.on(base.network), adapter.blind(encoded):
            found = base.read(adapter.rewrite(base.pack([item]), base))[0].log_probs
        assert found.tolist() == pytest.approx(alone, abs=1e-4)


def test_it_is_trained_that_way_and_goes_on_that_way():
    base = trunk("gpt2", dropout=0.0)
    one, other = fitted(base, eps=10.0), fitted(base, eps=10.0, leave_one_out=True)
    assert torch.equal(one.ids, other.ids)
    assert not torch.allclose(one.delta, other.delta, atol=1e-4)
    assert not other._own, "what is asked afterwards sees all"
    case = TuningCase(
        make_method("cpt", {"k": 1, "eps": 10.0, "leave_one_out": True}),
        lambda: trunk("gpt2", dropout=0.0),
    )
    check_resumed(case)
    check_saved(case)
    begun = Run(SHORT, 2, start=one.tensors())
    blind, seeing = (
        make_method("cpt", {"k": 1, "eps": 10.0, "leave_one_out": own}).fit(base, Data(ROWS), begun)
        for own in (True, False)
    )
    assert not torch.allclose(blind.delta, seeing.delta, atol=1e-4)


def test_without_a_radius_its_scores_are_those_of_the_in_context_view():
    base, choices = trunk("gpt2", dropout=0.0).reads("words"), ("great", "bad", "awful")
    rows = [[example(text, k % 3, choices)] for k, text in enumerate(TEXTS)]
    adapter = fitted(base, rows, eps=0.0)
    ids, starts = adapter.ids.tolist(), [start for start, _ in adapter.spans()]
    begins = [base.encoder.encode(row[0]).before for row in rows]
    order = [k for at in starts for k, own in enumerate(begins) if ids[at : at + len(own)] == own]
    shown = [({"text": TEXTS[k]}, choices[rows[k][0].answer]) for k in order]
    shown_texts = {row["text"] for row, _ in shown}
    view = InContext("{text} it was {mask}", n=3, demonstrations=shown)
    encoded = [[base.encoder.encode(row[0])] for row in rows]
    for text in ("a great film", "so so", *TEXTS):
        asked = [
            base.encoder.encode(ChoiceExample(own.render({"text": text}), choices, 0))
            for own in (view, Template("{text} it was {mask}"))
        ]
        wanted = base.read(base.pack(asked[:1]))[0].beta
        with adapter.on(base.network):
            found = base.read(adapter.rewrite(base.pack(asked[1:]), base))[0].beta
            with adapter.blind(encoded):
                blind = base.read(adapter.rewrite(base.pack(asked[1:]), base))[0].beta
        # a view leaves an example that is asked about out of its demonstrations
        assert torch.allclose(blind, wanted, atol=1e-5)
        assert torch.allclose(found, wanted, atol=1e-5) == (text not in shown_texts)
