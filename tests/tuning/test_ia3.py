from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch
import transformers

from fewfit.errors import ArtifactError, InputError
from fewfit.models.costs import ia3_count
from fewfit.tuning import IA3, LAYOUTS, Stack, load_original, site_map
from tests.tuning_models import ARCHITECTURES, inputs, network


@pytest.fixture(params=ARCHITECTURES)
def name(request):
    return request.param


def randomised(vectors: IA3, seed: int = 0) -> IA3:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for vector in vectors.vectors:
            vector.copy_(torch.randn(vector.shape, generator=generator))  # signs flip too
    return vectors


def logits(model, given) -> torch.Tensor:
    with torch.inference_mode():
        return model(**given).logits.clone()


def test_ones_leave_the_network_as_it_is_bit_for_bit(name):
    model, given = network(name), inputs(name)
    before = logits(model, given)
    vectors = IA3(site_map(model), n_tasks=2).attach(model)
    assert torch.equal(logits(model, given), before)
    with vectors.rows([1, 0, 1]):
        assert torch.equal(logits(model, given), before)
    randomised(vectors)
    assert not torch.allclose(logits(model, given), before, atol=1e-3)
    vectors.detach()
    assert torch.equal(logits(model, given), before)


def test_every_vector_has_an_effect_of_its_own(name):
    model, given = network(name), inputs(name)
    vectors = IA3(site_map(model)).attach(model)
    before = logits(model, given)
    for site, vector in vectors.of().items():
        with torch.no_grad():
            vector.mul_(1.7)
        changed = logits(model, given)
        with torch.no_grad():
            vector.fill_(1.0)
        assert (changed - before).abs().max() > 1e-5, site


def test_merged_weights_and_biases_give_what_the_vectors_gave(name):
    model, given = network(name), inputs(name)
    vectors = randomised(IA3(site_map(model))).attach(model)
    attached = logits(model, given)
    with pytest.raises(InputError, match="detach"):
        vectors.merge(model)
    vectors.detach()
    vectors.merge(model)
    assert torch.allclose(logits(model, given), attached, atol=1e-5)


def test_a_merge_that_forgot_the_biases_would_be_seen():
    model, given = network("bert"), inputs("bert")
    biases = {n: p.clone() for n, p in model.named_parameters() if n.endswith("bias")}
    vectors = randomised(IA3(site_map(model))).attach(model)
    attached = logits(model, given)
    vectors.detach()
    vectors.merge(model)
    for n, p in model.named_parameters():
        if n in biases:
            p.data.copy_(biases[n])
    assert not torch.allclose(logits(model, given), attached, atol=1e-3)


def test_the_hidden_activation_is_scaled_after_the_activation():
    """By hand, for one feed-forward with GELU; scaling before it would differ."""
    model = network("bert")
    sites = site_map(model)
    vectors = randomised(IA3(sites)).attach(model)
    scale = vectors.of()["encoder.0.ffn.hidden"]
    layer = model.bert.encoder.layer[0]
    x = torch.randn(2, 3, 16)
    inner, out = layer.intermediate.dense, layer.output.dense
    with torch.inference_mode():
        found = out(torch.nn.functional.gelu(inner(x)))
        after = (torch.nn.functional.gelu(inner(x)) * scale) @ out.weight.T + out.bias
        before = torch.nn.functional.gelu(inner(x) * scale) @ out.weight.T + out.bias
    assert torch.allclose(found, after, atol=1e-6)
    assert not torch.allclose(found, before, atol=1e-2)


def test_in_a_gated_layer_it_equals_scaling_the_linear_branch():
    model, given = network("t5-gated"), inputs("t5-gated")
    vectors = randomised(IA3(site_map(model))).attach(model)
    attached = logits(model, given)
    vectors.detach()
    plain = IA3(site_map(model))
    plain.set({n: v if "ffn" not in n else torch.ones_like(v) for n, v in vectors.of().items()})
    plain.merge(model)
    for stack, layer in (("encoder", 1), ("decoder", 2)):
        for i in range(2):
            ffn = getattr(model, stack).block[i].layer[layer].DenseReluDense
            scale = vectors.of()[f"{stack}.{i}.ffn.hidden"].detach()
            ffn.wi_1.weight.data.mul_(scale[:, None])
    assert torch.allclose(logits(model, given), attached, atol=1e-5)


def test_rows_of_a_mixed_batch_equal_runs_of_their_own_tasks(name):
    model, given = network(name), inputs(name)
    vectors = randomised(IA3(site_map(model), n_tasks=3)).attach(model)
    alone = []
    for task in (0, 1, 2):
        with vectors.rows([task] * 3):
            alone.append(logits(model, given))
    assert torch.allclose(alone[0], logits(model, given), atol=1e-6)
    assert not torch.allclose(alone[0], alone[2], atol=1e-2)
    for tasks in ([0, 2, 0], [2, 0, 1]):
        with vectors.rows(tasks):
            mixed = logits(model, given)
        for row, task in enumerate(tasks):
            assert torch.allclose(mixed[row], alone[task][row], atol=1e-6)
    swap = [1, 0, 2]
    swapped = {key: value[swap] for key, value in given.items()}
    with vectors.rows([2, 0, 1]):
        straight = logits(model, given)
    with vectors.rows([0, 2, 1]):
        assert torch.allclose(logits(model, swapped), straight[swap], atol=1e-6)


def test_tasks_that_do_not_fit_are_refused():
    model, given = network("t5-gated"), inputs("t5-gated")
    vectors = IA3(site_map(model), n_tasks=2).attach(model)
    with pytest.raises(InputError, match="below n_tasks = 2"), vectors.rows([0, 2, 0]):
        pass
    with pytest.raises(InputError, match="2 were given for a batch of 3"), vectors.rows([0, 1]):
        logits(model, given)
    logits(model, given)  # nothing of the failed block is left


def test_a_gradient_reaches_only_the_tasks_of_the_batch():
    model, given = network("t5-gated"), inputs("t5-gated")
    model.requires_grad_(False)
    vectors = IA3(site_map(model), n_tasks=3).attach(model)
    with vectors.rows([0, 2, 2]):
        model(**given).logits.square().mean().backward()
    size = {
        task: sum(float(v.grad.abs().sum()) for v in vectors.of(task).values()) for task in range(3)
    }
    assert size[1] == 0
    assert min(size[0], size[2]) > 0


@pytest.mark.parametrize(
    ("size", "blocks", "inner", "ffn", "count"),
    [
        ("small", 8, 384, 1024, 34_816),
        ("base", 12, 768, 2048, 104_448),
        ("large", 24, 1024, 2816, 282_624),
        ("xl", 24, 2048, 5120, 540_672),
        ("xxl", 24, 4096, 10_240, 1_081_344),
    ],
)
def test_counts_of_t5_v1_1(size, blocks, inner, ffn, count):
    config = transformers.T5Config(
        num_layers=blocks,
        d_model=64,
        d_kv=64,
        num_heads=inner // 64,
        d_ff=ffn,
        vocab_size=32,
        feed_forward_proj="gated-gelu",
    )
    with torch.device("meta"):
        vectors = IA3(site_map(transformers.T5ForConditionalGeneration(config)))
    assert vectors.count == count
    formula = ia3_count(inner=inner, ffn=ffn, encoder_blocks=blocks, decoder_blocks=blocks)
    assert formula == count


def test_counts_of_other_architectures():
    for name, expected in {
        "gpt2": ia3_count(inner=16, ffn=24 * 0 + 64, decoder_blocks=2, cross=False),
        "bert": ia3_count(inner=16, ffn=24, encoder_blocks=2),
        "llama": 2 * (2 * 8 + 24),  # two key-value heads of size 4
    }.items():
        assert IA3(site_map(network(name))).count == expected, name


def test_the_published_vectors_fit_t0_3b_key_by_key(shared):
    path = shared / "models" / "t0-3b-ia3" / "ia3.safetensors"
    if not path.exists():
        pytest.skip("no published vectors here")
    config = transformers.T5Config(
        num_layers=24,
        d_model=2048,
        d_kv=64,
        num_heads=32,
        d_ff=5120,
        vocab_size=32_128,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        sites = site_map(transformers.T5ForConditionalGeneration(config))
    vectors = IA3(sites)
    published = load_original(path)
    assert len(published) == 192
    assert published.keys() == vectors.of().keys()
    vectors.set(published)
    values = torch.cat([v.detach() for v in vectors.of().values()])
    assert len(values) == 540_672
    assert values.mean().item() == pytest.approx(0.995, abs=5e-4)
    assert values.std().item() == pytest.approx(0.093, abs=5e-4)
    assert values.min().item() == pytest.approx(-0.788, abs=5e-4)
    from safetensors.torch import load_file

    raw = load_file(path)["decoder.block.3.layer.1.EncDecAttention.v.multi_lora_b"]
    assert torch.equal(vectors.of()["decoder.3.cross.v"], raw.flatten())
    raw = load_file(path)["encoder.block.23.layer.1.DenseReluDense.wi_1.multi_lora_b"]
    assert torch.equal(vectors.of()["encoder.23.ffn.hidden"], raw.flatten())


def test_a_tensor_that_is_not_a_vector_of_ia3_is_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    save_file({"encoder.block.0.layer.0.SelfAttention.q.multi_lora_b": torch.ones(4, 1)}, path)
    with pytest.raises(ArtifactError, match=r"SelfAttention\.q"):
        load_original(path)


def test_vectors_of_another_model_are_refused():
    vectors = IA3(site_map(network("t5-gated")))
    with pytest.raises(InputError, match="another model"):
        vectors.set(IA3(site_map(network("bert"))).of())
    wrong = {n: torch.ones(3) for n in vectors.of()}
    with pytest.raises(InputError, match=r"shape \(3,\)"):
        vectors.set(wrong)


def test_an_unknown_architecture_is_named_with_what_to_do():
    config = transformers.OPTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        ffn_dim=24,
        num_attention_heads=2,
        vocab_size=30,
        max_position_embeddings=16,
        word_embed_proj_dim=16,
    )
    model = transformers.OPTForCausalLM(config).eval()
    model.config.model_type = "another"
    with pytest.raises(InputError, match=r"'another' is not known \(known: t5.*layout="):
        site_map(model)
    with pytest.raises(InputError, match=r"looked for the module 'transformer\.h' in 'another'"):
        site_map(model, LAYOUTS["gpt2"])
    attention = dict(zip("qkvo", ("q_proj", "k_proj", "v_proj", "out_proj"), strict=True))
    layout = Stack(
        "decoder",
        "model.decoder.layers",
        {"self": {part: f"self_attn.{path}" for part, path in attention.items()}},
        ("fc1",),
        "fc2",
    )
    sites = site_map(model, [layout])
    vectors = IA3(sites).attach(model)
    assert vectors.count == ia3_count(inner=16, ffn=24, decoder_blocks=1, cross=False)
    with pytest.raises(InputError, match="looked for one of"):
        site_map(model, [layout._replace(ffn_in=("nowhere",))])


def test_a_site_map_names_what_other_methods_need():
    model = network("t5-gated")
    sites = site_map(model)
    assert sites.blocks[2] == "decoder.block.0"
    assert (sites.embeddings, sites.head) == ("shared", "lm_head")
    assert len(sites.layers["ffn.in"]) == 8  # both branches of a gated layer
    assert len(sites.layers["q"]) == 6
    assert sites.sites["decoder.1.cross.o"].size == 16
    fused = site_map(network("gpt2"))
    assert fused.layers["k"] == fused.layers["v"]
    assert [fused.sites[f"decoder.0.self.{part}"].start for part in "qkv"] == [0, 16, 32]
    with pytest.raises(InputError, match="sites: none of"):
        fused.select("cross.k")
