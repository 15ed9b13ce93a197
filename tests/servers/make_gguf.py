"""Write a Llama checkpoint of the Hugging Face layout as GGUF, all in float32.

``python make_gguf.py CHECKPOINT OUTPUT.gguf``, in an environment with gguf and safetensors. For
checkpoints whose tokenizer is byte-fallback BPE, as stories260K's is.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder rows from half-split rotary pairs to the interleaved ones that llama.cpp reads."""
    out, size = weight.shape
    return weight.reshape(heads, 2, out // heads // 2, size).swapaxes(1, 2).reshape(out, size)


def main(checkpoint: Path, output: Path) -> None:
    import gguf  # of the servers' environment, not of the tests'

    config = json.loads((checkpoint / "config.json").read_text())
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    writer = gguf.GGUFWriter(output, "llama")
    writer.add_name(checkpoint.name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])

    tokens = sorted(tokenizer["vocab"], key=tokenizer["vocab"].get)
    ranks = {"".join(pair): rank for rank, pair in enumerate(tokenizer["merges"])}
    types, scores = [], []
    for token in tokens:
        special = {"<unk>": gguf.TokenType.UNKNOWN}.get(token, gguf.TokenType.CONTROL)
        if token in ("<unk>", "<s>", "</s>"):
            types.append(special)
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            types.append(gguf.TokenType.BYTE)
        else:
            types.append(gguf.TokenType.NORMAL)
        scores.append(-float(ranks.get(token, 10**6)))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(True)

    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, array in load_file(checkpoint / "model.safetensors").items():
        weight = array.astype(np.float32)
        layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.weight", name)
        if layer:
            short = NAMES[layer[2]]
            weight = interleaved(weight, heads[short]) if short in heads else weight
            target = f"blk.{layer[1]}.{short}.weight"
        else:
            target = {
                "model.embed_tokens.weight": "token_embd.weight",
                "model.norm.weight": "output_norm.weight",
                "lm_head.weight": "output.weight",
            }[name]
        writer.add_tensor(target, np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
