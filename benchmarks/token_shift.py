"""What a shift of weights does to a model's answers: SmolLM2-135M-Instruct and perturbed copies.

    python -m benchmarks token_shift [--noise 0,0.02,0.05,0.1] [--max-tokens 64]

``fewfit analyse token-shift`` in a loop: SmolLM2 (``fewfit download smollm2``) answers ten
questions through its chat template, greedily, and copies of it rank each token: each weight matrix
of a copy has Gaussian noise on it, of so many times the matrix's own standard deviation. The copy
without noise is the check. Writes ``results/token_shift.json``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import RESULTS
from fewfit import load_model
from fewfit.analysis.local import answer_and_rank, shares
from fewfit.markdown import markdown_table

QUESTIONS = (
    "What is the capital of Portugal?",
    "Explain to a child why the sky is blue.",
    "Give me three tips for a better night's sleep.",
    "Write a short poem about the sea in autumn.",
    "How do I boil an egg so that the yolk stays soft?",
    "What is the difference between a virus and a bacterium?",
    "Suggest a name for a small bookshop and say why it fits.",
    "Translate 'good morning, my friends' into Spanish.",
    "Why do cats purr?",
    "I have a job interview tomorrow. How should I prepare?",
)


def perturbed(source: Path, folder: Path, noise: float, seed: int = 0) -> Path:
    """Write a copy of a checkpoint with noise on its weight matrices, and return its folder."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    random = torch.Generator().manual_seed(seed)
    for file in sorted(source.glob("*.safetensors")):
        tensors = load_file(file)
        for name, tensor in sorted(tensors.items()):
            if tensor.ndim > 1 and noise:
                drawn = torch.randn(tensor.shape, generator=random)
                tensors[name] = (tensor + noise * tensor.float().std() * drawn).to(tensor.dtype)
        save_file(tensors, folder / file.name, metadata={"format": "pt"})
    return folder


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="hf:smollm2?dtype=bfloat16&chat=true")
    parser.add_argument("--noise", default="0,0.02,0.05,0.1")
    parser.add_argument("--max-tokens", type=int, default=64)
    args = parser.parse_args(argv)
    aligned: Any = load_model(args.model)
    rows: list[dict[str, Any]] = []
    for noise in map(float, args.noise.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            copy = perturbed(aligned.checkpoint.everything, Path(folder) / "copy", noise)
            base = load_model(f"hf:{copy}?dtype={aligned.dtype}")
            found = list(answer_and_rank(base, aligned, QUESTIONS, max_tokens=args.max_tokens))
        ranks = [rank for one in found for rank in one.ranks]
        rows.append({"noise": noise, "tokens": len(ranks), **shares(ranks)})
        print(rows[-1], flush=True)
        text = json.dumps({**vars(args), "rows": rows}, indent=1)
        (RESULTS / "token_shift.json").write_text(text + "\n", encoding="utf-8")


def section(path: Path) -> str:
    """The section of RESULTS.md."""
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        [
            f"{row['noise']:g}",
            str(row["tokens"]),
            *(f"{100 * row[kind]:.1f}" for kind in ("unshifted", "marginal", "shifted")),
        ]
        for row in content["rows"]
    ]
    header = ["noise on the base's weights", "tokens", "unshifted, %", "marginal, %", "shifted, %"]
    return (
        "\n## Token-distribution shift\n\n`python -m benchmarks token_shift`\n\n"
        f"SmolLM2-135M-Instruct answers {len(QUESTIONS)} questions in at most "
        f"{content['max_tokens']} tokens; its own copy with noise on every weight matrix, in the "
        "matrix's standard deviations, ranks each token (`fewfit analyse token-shift`). "
        "Unshifted: the copy's first choice; marginal: second or third.\n\n"
        + markdown_table(header, rows)
        + "\n"
    )


if __name__ == "__main__":
    main()
