"""The site map: what it calls keys, values and so on is what these are, in every architecture."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from fewfit.errors import InputError
from fewfit.tuning import IA3, LAYOUTS, site_map
from fewfit.tuning.site import feature_axis, hook
from fewfit.tuning.sites import REFUSED, read_sites
from fewfit.tuning.sites_file import EXAMPLE, content_of, layout_from
from tests.tuning.architectures import (
    ARCHITECTURES,
    BLOCKS,
    HEADS,
    HIDDEN,
    WIDTH,
    inputs,
    network,
)

EXPERTS = ("mixtral", "qwen3_moe")
each = pytest.mark.parametrize("name", ARCHITECTURES)


@torch.no_grad()
def logits(model: Any, name: str) -> torch.Tensor:
    return model(**inputs(name))[0]


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-9, atol=1e-10)


def scaled(model: Any, changes: dict[Any, torch.Tensor], name: str) -> torch.Tensor:
    handles = [hook(model, site, lambda x, by=by: x * by) for site, by in changes.items()]
    try:
        return logits(model, name)
    finally:
        for handle in handles:
            handle.remove()


def random(size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(size)
    return 0.5 + torch.rand(size, generator=generator, dtype=torch.float64)


def test_every_known_architecture_is_tested_here():
    kinds = {getattr(transformers, of.config).model_type for of in ARCHITECTURES.values()}
    assert kinds == LAYOUTS.keys() - {"encoder-decoder", "gemma3"}  # test_ia3, and below


@each
@torch.no_grad()
def test_scaling_a_site_is_scaling_the_rows_of_its_weight(name: str):
    model = network(name)
    sites, before = site_map(model), logits(model, name)
    parts = ["self.k", "self.v", "self.o", "cross.k", "cross.v"]
    for site in sites.select(*parts, *([] if name in EXPERTS else ["ffn.hidden", "ffn.out"])):
        by = random(site.size)
        got = scaled(model, {site: by}, name)
        layer: Any = model.get_submodule(site.module)
        kept = copy.deepcopy(layer.state_dict())
        axis = feature_axis(layer, site.side)
        layer.weight[(slice(None),) * axis + (site.where,)] *= by.unsqueeze(1 - axis)
        if site.side == "output" and layer.bias is not None:
            layer.bias[site.where] *= by
        assert close(got, logits(model, name)), site
        assert site.part == "self.k" or not close(got, before), site
        layer.load_state_dict(kept)
    assert torch.equal(logits(model, name), before)


@each
def test_queries_keys_values_and_context_are_what_the_heads_make_of_them(name: str):
    """Scores and sums stay as they are where a scale on one side is undone on the other."""
    model, groups = network(name), ARCHITECTURES[name].key_heads
    sites, before = site_map(model), logits(model, name)
    for which in ("self", "cross") if "Conditional" in ARCHITECTURES[name].head else ("self",):
        for block in [s.name.removesuffix(".q") for s in sites.select(f"{which}.q")]:
            q, k, v, context = (sites.sites[f"{block}.{p}"] for p in ("q", "k", "v", "context"))
            size = k.size // groups
            by = random(groups)
            keys = by.repeat_interleave(size)
            queries = by.repeat_interleave(size * HEADS // groups)
            if not hasattr(model.get_submodule(k.module.rpartition(".")[0]), "k_norm"):
                same = scaled(model, {q: queries, k: 1 / keys}, name)
                assert torch.allclose(same, before, rtol=1e-5, atol=1e-5), block  # float32 angles
            values = random(v.size)
            sums = values.view(groups, 1, size).expand(-1, HEADS // groups, -1).reshape(-1)
            assert close(scaled(model, {v: values, context: 1 / sums}, name), before), block
            assert not close(scaled(model, {v: values}, name), before), block


@each
def test_counts(name: str):
    model, of = network(name), ARCHITECTURES[name]
    sites = site_map(model)
    keys = WIDTH // HEADS * of.key_heads
    seq2seq = "Conditional" in of.head
    assert len(sites.blocks) == BLOCKS * (1 + seq2seq)
    assert {s.size for s in sites.select("self.q", "self.context", "block")} == {WIDTH}
    assert {s.size for s in sites.select("self.k", "self.v")} == {keys}
    if name in EXPERTS:
        with pytest.raises(
            InputError, match=r"there is no ffn\.hidden: the weights of its experts"
        ):
            IA3(sites)
        return
    attentions = BLOCKS * (3 if seq2seq else 1)
    hidden = 4 * WIDTH if name == "bloom" else HIDDEN
    assert IA3(sites).count == attentions * 2 * keys + len(sites.blocks) * hidden


@each
def test_ia3_merged_is_ia3_attached(name: str):
    if name in EXPERTS:
        return
    model = network(name)
    vectors = IA3(site_map(model)).double()
    for parameter in vectors.parameters():
        parameter.data = random(len(parameter))
    vectors.attach(model)
    attached = logits(model, name)
    vectors.detach()
    vectors.merge(model)
    assert close(logits(model, name), attached)


@each
def test_sublayers_are_all_that_a_block_adds(name: str):
    model = network(name)
    sites = site_map(model)
    seen: dict[str, torch.Tensor] = {}
    parts = {s.part for s in sites.sites.values() if s.part.endswith("sublayer")}
    assert {"self.sublayer", "ffn.sublayer"} <= parts
    handles = [hook(model, s, torch.zeros_like) for s in sites.select(*parts)]
    blocks = sites.select("block")
    handles += [hook(model, s, lambda x, s=s: seen.__setitem__(s.name, x)) for s in blocks]
    states = logits(model, name)
    assert torch.isfinite(states).all()
    for stack in {s.name.split(".")[0] for s in blocks}:
        first, second = seen[f"{stack}.0.block"], seen[f"{stack}.1.block"]
        if ARCHITECTURES[name].pre_norm:
            assert torch.equal(first, second)
        else:
            norms = [sites.sites[f"{stack}.1.norm.{i}"] for i in range(2)]
            for norm in norms:
                first = model.get_submodule(norm.module)(first)
            assert close(first, second)


@each
def test_embeddings_blocks_and_norms_are_read_and_changed(name: str):
    model = network(name)
    sites, before = site_map(model), logits(model, name)
    seen: dict[str, torch.Tensor] = {}
    norms = [] if name == "olmo" else ["norm.0"]  # whose norms have no weights
    chosen = sites.select("embeddings", "block", *norms)
    handles = [hook(model, s, lambda x, s=s: seen.__setitem__(s.name, x)) for s in chosen]
    assert torch.equal(logits(model, name), before)  # to read changes nothing
    for handle in handles:
        handle.remove()
    assert seen.keys() == {s.name for s in chosen}
    assert {seen[s.name].shape[-1] for s in chosen} == {s.size for s in chosen}
    for site in chosen:
        assert not close(scaled(model, {site: random(site.size)}, name), before), site
    assert all(model.get_submodule(path).weight.ndim == 1 for path in sites.norms)
    assert bool(sites.norms) == bool(norms)


@each
def test_a_network_without_a_head_has_the_same_sites(name: str):
    model, bare = site_map(network(name)), site_map(network(name, bare=True))
    assert bare.sites.keys() == model.sites.keys()
    assert [s[2:] for s in bare.sites.values()] == [s[2:] for s in model.sites.values()]
    assert bare.head is None


def test_the_encoder_of_an_encoder_decoder_stands_alone():
    config = transformers.T5Config(**ARCHITECTURES["t5"].sizes)
    sites = site_map(transformers.T5EncoderModel(config))
    assert sites.blocks == ("encoder.block.0", "encoder.block.1")
    assert sites.sites["encoder.embeddings"].module == "encoder.embed_tokens"


def test_gemma3_with_eyes_has_the_sites_of_its_text_model():
    vision = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision |= {"intermediate_size": 8, "image_size": 8, "patch_size": 4}
    named: dict[str, Any] = {"image_token_id": 39, "boi_token_id": 38, "eoi_token_id": 37}
    config = transformers.Gemma3Config(
        text_config=ARCHITECTURES["gemma3_text"].sizes, vision_config=vision, **named
    )
    with torch.device("meta"):
        model = transformers.Gemma3ForConditionalGeneration(config)
    assert site_map(model).blocks[1] == "model.language_model.layers.1"
    assert site_map(model).sites.keys() == site_map(network("gemma3_text")).sites.keys()


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_architectures_say_why(kind: str):
    model = transformers.DebertaForMaskedLM(
        transformers.DebertaConfig(**ARCHITECTURES["bert"].sizes)
    )
    with pytest.raises(InputError, match=r"'deberta' has none: .*take DeBERTa v2 or v3"):
        site_map(model)


def test_heads_that_do_not_divide_a_fused_layer_are_refused():
    model = network("gpt_neox")
    model.config.num_attention_heads = 5
    with pytest.raises(
        InputError, match="writes 48 features, which are not the queries of 5 heads"
    ):
        site_map(model)


# ---- the file


TABLE = """\
[[stack]]
name = "decoder"
blocks = "model.layers"
self = { q = "self_attn.q_proj", k = "self_attn.k_proj", v = "self_attn.v_proj", \
o = "self_attn.o_proj" }
ffn_in = ["mlp.gate_proj", "mlp.up_proj"]
ffn_out = "mlp.down_proj"
"""


def unknown() -> Any:
    model = network("llama")
    model.config.model_type = "my-llama"
    return model


def test_the_example_in_the_refusal_works(tmp_path):
    with pytest.raises(InputError) as refused:
        site_map(unknown())
    message = str(refused.value)
    assert "'my-llama' is not known" in message
    assert "--sites FILE" in message
    assert message.endswith(EXAMPLE)
    assert layout_from(tomllib.loads(EXAMPLE), "") == layout_from(tomllib.loads(TABLE), "")
    assert "blocks seem to be 'model.layers', with the layers self_attn.q_proj" in message
    path = tmp_path / "sites.toml"
    path.write_text(message[message.index("stack = [{") :])
    assert site_map(unknown(), read_sites(path)).sites == site_map(network("llama")).sites


def test_json_and_all_that_a_layout_can_say(tmp_path):
    path = tmp_path / "sites.json"
    path.write_text(
        '{"stack": [{"name": "decoder", "blocks": "model.layers", "self": {"q": "self_attn.q_proj",'
        ' "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj"}, "ffn_in": '
        '["mlp.gate_proj", "mlp.up_proj"], "ffn_out": "mlp.down_proj", "after": {"self": '
        '"post_attention_layernorm", "ffn": "post_feedforward_layernorm"}, "embeddings": '
        '"model.embed_tokens"}]}'
    )
    assert site_map(network("gemma2"), read_sites(path)) == site_map(network("gemma2"))
    neox = tmp_path / "neox.toml"
    neox.write_text(
        '[[stack]]\nname = "decoder"\nblocks = "gpt_neox.layers"\nself = { qkv_by_head = '
        '"attention.query_key_value", o = "attention.dense" }\nffn_in = ["mlp.dense_h_to_4h"]\n'
        'ffn_out = "mlp.dense_4h_to_h"\n'
    )
    assert site_map(network("gpt_neox"), read_sites(neox)) == site_map(network("gpt_neox"))


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_layout_goes_through_a_manifest(kind: str):
    content = json.loads(json.dumps(content_of(LAYOUTS[kind])))
    assert layout_from(content, "the manifest") == LAYOUTS[kind]


def test_the_example_in_the_docs_works(tmp_path):
    """GPT-J is in no table; what the page says of it is all that is needed."""
    page = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8")
    path = tmp_path / "gptj.toml"
    path.write_text(re.findall(r"```toml\n(\[\[stack\]\].*?)```", page, re.DOTALL)[0])
    config = transformers.GPTJConfig(
        n_embd=WIDTH, n_layer=BLOCKS, n_head=HEADS, n_inner=HIDDEN, rotary_dim=4, vocab_size=40
    )
    model = transformers.GPTJForCausalLM(config).double().eval()
    with pytest.raises(InputError, match="'gptj' is not known"):
        site_map(model)
    vectors = IA3(site_map(model, read_sites(path))).double()
    assert vectors.count == BLOCKS * (2 * WIDTH + HIDDEN)
    for parameter in vectors.parameters():
        parameter.data = random(len(parameter))
    vectors.attach(model)
    attached = logits(model, "llama")
    vectors.detach()
    assert not close(logits(model, "llama"), attached)
    vectors.merge(model)
    assert close(logits(model, "llama"), attached)


BAD = {
    "[[stack": "cannot be read",
    "": "stack: Field required",
    TABLE.replace("ffn_out", "ffn_outt"): r"stack\.0\.ffn_out: Field required",
    TABLE + "more = 1\n": r"stack\.0\.more: Extra inputs",
    TABLE.replace('"decoder"', '"middle"'): r"stack\.0\.name: Input should be 'encoder'",
    TABLE.replace('["mlp.gate_proj", "mlp.up_proj"]', "[]"): r"stack\.0\.ffn_in",
    TABLE.replace('q = "self_attn.q_proj", ', ""): r"decoder\.self: needs q, k, v and o; or qkv",
    TABLE.replace('"model.layers"', '" "'): r"stack\.0\.blocks",
    TABLE.replace('"model.layers"', "3"): r"stack\.0\.blocks",
    TABLE + TABLE: "two stacks have the name 'decoder'",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_file_is_refused_with_the_place(text: str, tmp_path):
    path = tmp_path / "sites.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=f"{re.escape(str(path))}.*{BAD[text]}"):
        read_sites(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_sites(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('"model.layers"', '"model.h"', "module 'model.h'"),
        ("self_attn.k_proj", "attn.k", "module 'model.layers.0.attn.k'"),
        ("mlp.down_proj", "mlp.out", "module 'model.layers.0.mlp.out'"),
        ("ffn_out", 'after = { ffn = "norm3" }\nffn_out', "module 'model.layers.0.norm3'"),
        ("ffn_out", 'embeddings = "wte"\nffn_out', "module 'wte'"),
    ],
)
def test_a_path_that_is_not_in_the_network(old: str, new: str, what: str, tmp_path):
    path = tmp_path / "sites.toml"
    path.write_text(TABLE.replace(old, new))
    with pytest.raises(InputError, match=f"looked for the {what} in 'my-llama'"):
        site_map(unknown(), read_sites(path))
