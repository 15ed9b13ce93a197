"""A causal model of this process that writes, and what another thinks of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import transformers

from fewfit import Template, load_model
from fewfit.analysis.local import answer_and_rank, shares, shifted_tokens
from fewfit.errors import InputError, TruncationWarning
from fewfit.models import TransformersModel
from fewfit.models.generation import Writing, Written
from fewfit.store.texts import write_texts
from tests.hf_checkpoints import build

TEMPLATE = Template("{text}{mask}")
TEXTS = ("the movie was", "in summary , it was", "I loved it. It", "New")
CHAT = "{% for m in messages %}<unk>{{ m.content }}</s>{% endfor %}<unk>"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    home = tmp_path_factory.mktemp("writing")
    found = [build("llama", home / str(seed), positions=96, seed=seed) for seed in (0, 1)]
    (found[0] / "chat_template.jinja").write_text(CHAT)
    return [*found, build("gpt2", home / "gpt2"), build("bert", home / "bert")]


def prompts(*texts):
    return [TEMPLATE.render({"text": text}) for text in texts]


def texts_of(model, how):
    found: dict[int, Written] = {}
    for where, written in write_texts(model, prompts(*TEXTS), how, store=None):
        found |= dict(zip(where.tolist(), written, strict=True))
    return [found[i] for i in range(len(TEXTS))]


def greedy(folder, text, n, chat=False):
    """The same by hand: the most probable token, one after the other, without a cache."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if chat:
        said = [{"role": "user", "content": text}]
        shown = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(shown, add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(text)["input_ids"]
        ids = ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids
    start = len(ids)
    with torch.inference_mode():
        for _ in range(n):
            token = int(network(torch.tensor([ids])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            ids.append(token)
    return tokenizer.decode(ids[start:], skip_special_tokens=True), ids[:start], ids[start:]


@pytest.mark.parametrize("chat", [False, True])
def test_it_writes_the_most_probable_token_again_and_again(folders, chat):
    model = load_model(f"hf:{folders[0]}" + "?chat=true" * chat)
    written = texts_of(model, Writing(max_tokens=12))
    for text, found in zip(TEXTS, written, strict=True):
        expected, read, said = greedy(folders[0], text, 12, chat)
        assert found.text == expected
        assert found.n_tokens == len(read) + len(said)
        assert found.is_whole == (len(said) < 12)


def test_it_stops_at_a_text_whatever_the_others_do(folders):
    model = load_model(f"hf:{folders[0]}")
    plain = [found.text for found in texts_of(model, Writing(max_tokens=12))]
    stop = plain[0].strip()[2:5]
    stopped = texts_of(model, Writing(max_tokens=12, stop=(stop,)))
    assert [found.text for found in stopped] == [text.partition(stop)[0] for text in plain]
    assert stopped[0].is_whole
    assert stopped[0].n_tokens < texts_of(model, Writing(max_tokens=12))[0].n_tokens


def test_scoring_is_as_before_after_writing(folders):
    model = load_model(f"hf:{folders[0]}")
    before = model.observe(prompts(*TEXTS), ("great", "bad"))
    texts_of(model, Writing(max_tokens=3))
    after = model.observe(prompts(*TEXTS), ("great", "bad"))
    np.testing.assert_array_equal(before.scores, after.scores)
    np.testing.assert_array_equal(before.hidden, after.hidden)


def test_what_cannot_write_is_refused(folders):
    with pytest.raises(InputError, match="no causal model"):
        texts_of(load_model(f"hf:{folders[3]}"), Writing())
    with pytest.raises(InputError, match="reads 96 tokens in all, and 96 are to be written"):
        texts_of(load_model(f"hf:{folders[0]}"), Writing(max_tokens=96))
    with pytest.warns(TruncationWarning, match="cut to the 2 tokens"):
        texts_of(load_model(f"hf:{folders[0]}"), Writing(max_tokens=94))


def test_a_model_is_its_own_base_and_another_is_not(folders):
    one, other = (load_model(f"hf:{folder}") for folder in folders[:2])
    for found in answer_and_rank(one, one, TEXTS, max_tokens=8):
        assert found.ranks
        assert set(found.ranks) == {1}
    steps: list[int] = []
    shifted = list(answer_and_rank(other, one, TEXTS, max_tokens=8, progress=steps.append))
    assert len(steps) == len(TEXTS)
    for text, found in zip(TEXTS, shifted, strict=True):
        _, read, said = greedy(folders[0], text, 8)
        network = transformers.AutoModelForCausalLM.from_pretrained(folders[1]).eval()
        with torch.inference_mode():
            logits = network(torch.tensor([read + said])).logits[0]
        ranks = [
            1 + int((logits[len(read) + t - 1] > logits[len(read) + t - 1, token]).sum())
            for t, token in enumerate(said)
        ]
        assert found.ranks == ranks
    told = shares([rank for found in shifted for rank in found.ranks])
    assert sum(told.values()) == pytest.approx(1)
    assert told["shifted"] > 0.5
    assert sum(n for _, n in shifted_tokens(shifted)) > 0
    assert shares([]) == {"unshifted": 0.0, "marginal": 0.0, "shifted": 0.0}


def test_only_models_of_one_vocabulary_are_compared(folders):
    llama, gpt2 = load_model(f"hf:{folders[0]}"), load_model(f"hf:{folders[2]}")
    with pytest.raises(InputError, match="other vocabularies"):
        next(answer_and_rank(gpt2, llama, TEXTS))
    with pytest.raises(InputError, match="base: 'embedded' is no causal model"):
        next(answer_and_rank(load_model("embedded"), llama, TEXTS))


def test_what_is_written_does_not_depend_on_who_else_asks(folders):
    model = load_model(f"hf:{folders[0]}")
    [prompt] = prompts(TEXTS[0])
    how = Writing(max_tokens=8)
    model.observe([prompt], ["the", "movie"])
    alone = texts_of(model, how)
    ids, written = model.write_tokens(prompt, how)
    scores = model.next_scores(ids)
    over = threading.Event()

    def ask():
        while not over.is_set():
            model.observe([prompt], ["the", "movie"])

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        try:
            for _ in range(20):
                assert model.next_scores(ids).shape == scores.shape
                assert model.write_tokens(prompt, how) == (ids, written)
            assert texts_of(model, how) == alone
        finally:
            over.set()
        assert [job.result() for job in asking] == [None, None]


def test_more_to_write_than_the_model_has_is_said_as_that(folders):
    model = load_model(f"hf:{folders[0]}")
    for call in (
        lambda: list(model.write(prompts("a"), Writing(max_tokens=96))),
        lambda: model.write_tokens(prompts("a")[0], Writing(max_tokens=200)),
    ):
        with pytest.raises(InputError, match=r"max_tokens: .* reads 96 tokens in all"):
            call()


def test_a_folder_that_is_called_like_a_pair_is_refused_at_once(tmp_path):
    folder = build("bert", tmp_path / "a + b")
    with pytest.raises(InputError, match="rename the folder"):
        TransformersModel(folder)
    with pytest.raises(InputError, match="'b' is not known"):
        load_model(f"hf:{folder}")
