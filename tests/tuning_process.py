"""Run under torchrun: trains and lets the main process write the vectors."""

from __future__ import annotations

import sys

import torch
from accelerate import PartialState
from safetensors.torch import save_file

from fewfit.tuning import Recipe, t_few
from tests.tuning_models import EXAMPLES, trunk

RECIPE = Recipe(steps=6, batch_size=4, dropout=False, optimizer="adamw", learning_rate=0.02)


def main() -> None:
    torch.set_num_threads(1)
    vectors = t_few(trunk(), [[item] for item in EXAMPLES], recipe=RECIPE, seed=3)
    if PartialState().is_main_process:
        save_file({k: v.detach() for k, v in vectors.of().items()}, sys.argv[1])
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main()
