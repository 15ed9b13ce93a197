"""Speed and memory, each as a ratio within one run.

    python -m benchmarks speed

On `embedded`, and for encoding on `embedded-en-float32` too, which torch runs. Writes
``results/speed.json``. Figures are medians over interleaved repetitions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import RESULTS
from fewfit import DecT, Template
from fewfit.models import EmbeddedEncoder, Float32Encoder
from fewfit.models.embedded.minilm import find_files

WORDS = Path(__file__).parents[2] / "src" / "fewfit" / "datasets" / "support_desk.csv"


def texts(n: int, *, seed: int = 0) -> list[str]:
    """Return n distinct short texts: 5 to 30 words drawn from the support-desk messages."""
    vocabulary = WORDS.read_text(encoding="utf-8").split()
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(vocabulary, rng.integers(5, 31))) for _ in range(n)]


def timed(call: Callable[[], Any]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def dect_fit(repeats: int = 15) -> dict[str, float]:
    """DecT's fit against the same loop in torch: N = 64, H = 1024, K = 4, 30 steps."""
    import torch

    rng = np.random.default_rng(0)
    X = rng.standard_normal((64, 1024), dtype=np.float32)
    y = np.arange(64) % 4
    m = rng.standard_normal((64, 4), dtype=np.float32)
    tX, ty, tm = torch.from_numpy(X), torch.from_numpy(y), torch.from_numpy(m)

    def in_torch() -> None:
        torch.manual_seed(0)
        head = torch.nn.Linear(1024, 128, bias=False)
        z = torch.nn.init.xavier_uniform_(torch.empty(4, 128))
        with torch.no_grad():
            u = head(tX)
            groups = [u[ty == k] for k in range(4)]
            r = torch.stack([(g - g.mean(0)).norm(dim=1).mean() for g in groups])
        r = torch.nn.Parameter(r)
        optimiser = torch.optim.Adam([*head.parameters(), r], lr=0.01)
        for _ in range(30):
            x = torch.nn.functional.normalize(head(tX), dim=1)
            s = r - torch.cdist(x, z) + tm / 16
            loss = torch.nn.functional.cross_entropy(s, ty)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    def here() -> None:
        DecT().fit(X, y, scores=m)

    here()
    in_torch()
    pairs = [(timed(here), timed(in_torch)) for _ in range(repeats)]
    return {
        "fewfit_ms": 1000 * statistics.median(a for a, _ in pairs),
        "torch_ms": 1000 * statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
    }


def _bare() -> tuple[Any, Any]:
    """Return the network and the tokenizer of `embedded-en-float32`, without the library."""
    from tokenizers import Tokenizer
    from transformers import AutoModel

    folder = find_files()["config.json"].parent
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.no_padding()
    return AutoModel.from_pretrained(folder).eval(), tokenizer


def rendered(n: int) -> list[Any]:
    """Return n prompts."""
    template = Template("{text} In summary, it was {mask}.")
    return [template.render({"text": text}) for text in texts(n)]


def encoding(n: int = 5000, repeats: int = 3) -> dict[str, float]:
    """Encoding with `embedded` against its bare network, which is handed tokens, one thread each.

    What tokenising, threads and label scores cost shows in the ratio.
    """
    model, prompts = EmbeddedEncoder(), rendered(n)
    model.observe(prompts[:8], ["good", "bad"])
    read = model._load()
    items = [read.encode(prompt.user_text) for prompt in prompts]
    return _throughput(
        lambda: [read.vector(item) for item in items],
        lambda: model.observe(prompts, ["good", "bad"]),
        n,
        repeats,
    )


def _throughput(
    bare: Callable[[], Any], here: Callable[[], Any], n: int, repeats: int
) -> dict[str, float]:
    pairs = [(timed(bare), timed(here)) for _ in range(repeats)]
    return {
        "texts": n,
        "fewfit_texts_per_second": n / statistics.median(b for _, b in pairs),
        "bare_texts_per_second": n / statistics.median(a for a, _ in pairs),
        "ratio_of_throughput": statistics.median(a / b for a, b in pairs),
    }


def encoding_float32(n: int = 5000, repeats: int = 3) -> dict[str, float]:
    """Encoding through the library against the bare network over length-sorted batches.

    The bare side is handed tokens that are already sorted and padded, and returns pooled vectors:
    what any wrapper must pay for tokenising, sorting and label scores shows in the ratio.
    """
    import torch

    model, prompts = Float32Encoder(), rendered(n)
    model.observe(prompts[:8], ["good", "bad"])
    network, tokenizer = _bare()
    encoded = tokenizer.encode_batch_fast([prompt.user_text for prompt in prompts])
    ids = sorted((item.ids for item in encoded), key=len)
    batches = []
    for start in range(0, n, 64):
        rows = ids[start : start + 64]
        width = len(rows[-1])
        batches.append(
            (
                torch.tensor([row + [0] * (width - len(row)) for row in rows]),
                torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
            )
        )

    def bare() -> None:
        with torch.inference_mode():
            for tokens, mask in batches:
                last = network(input_ids=tokens, attention_mask=mask).last_hidden_state
                weight = mask.unsqueeze(-1)
                _ = (last * weight).sum(1) / weight.sum(1)

    return _throughput(bare, lambda: model.observe(prompts, ["good", "bad"]), n, repeats)


SECOND_FIT = """
import sys, time
from benchmarks.speed.speed import texts
from fewfit import DecT, FewShotClassifier
rows = texts(int(sys.argv[1]), seed=1)
y = ["good" if i % 2 else "bad" for i in range(len(rows))]
model, path = "embedded", sys.argv[2] + "/store.sqlite"
clf = FewShotClassifier(model, decoder=DecT(), store=path)
start = time.perf_counter()
clf.fit(rows, y)
first, loaded = time.perf_counter(), clf.task_.model.model
clf.fit(rows, y)
second, asked = time.perf_counter(), clf.n_queries_
clf.set_params(store=sys.argv[2] + "/other.sqlite", model=loaded).fit(rows, y)
print(first - start, second - first, time.perf_counter() - second, asked)
"""


def second_fit(n: int = 1000, repeats: int = 3) -> dict[str, float]:
    """The first fit of DecT in a fresh process against the second, which asks nothing.

    The first also loads the weights; a third fit, into an empty store, shows it without.
    """
    rows = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            out = subprocess.run(
                [sys.executable, "-c", SECOND_FIT, str(n), folder],
                capture_output=True,
                text=True,
                check=True,
            )
            rows.append([float(value) for value in out.stdout.split()])
    return {
        "texts": n,
        "first_seconds": statistics.median(row[0] for row in rows),
        "second_seconds": statistics.median(row[1] for row in rows),
        "loaded_seconds": statistics.median(row[2] for row in rows),
        "ratio": statistics.median(row[0] / row[1] for row in rows),
        "ratio_loaded": statistics.median(row[2] / row[1] for row in rows),
        "queries_of_the_second": max(row[3] for row in rows),
    }


MEMORY = """
import resource, sys
from benchmarks.speed.speed import texts
from fewfit import Template
from fewfit.models import EmbeddedEncoder
template = Template("{text} It was {mask}.")
prompts = [template.render({"text": text}) for text in texts(int(sys.argv[1]))]
model = EmbeddedEncoder()
model.observe(prompts[:2048], ["good", "bad"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
answers = model.observe(prompts, ["good", "bad"])
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
size = sum(getattr(answers, n).nbytes for n in ("hidden", "scores", "label_mass", "n_tokens"))
print(grown, size)
"""


def memory(n: int = 20_000) -> dict[str, float]:
    """How much the peak grows from 2,048 texts to n, beside the size of the observations."""
    out = subprocess.run(
        [sys.executable, "-c", MEMORY, str(n)], capture_output=True, text=True, check=True
    )
    grown, size = map(int, out.stdout.split())
    return {"texts": n, "peak_growth_mb": grown / 1e6, "observations_mb": size / 1e6}


def main(argv: Sequence[str] | None = None) -> None:
    """Run all and write the figures."""
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    import torch

    results = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    for part in (dect_fit, encoding, encoding_float32, second_fit, memory):
        figures = {name: round(value, 4) for name, value in part().items()}
        print(part.__name__, figures, flush=True)
        results[part.__name__] = figures
    path = RESULTS / "speed.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
