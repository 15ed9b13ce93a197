"""Run by ``accelerate launch``: the command line, and then what the training ran on."""

from __future__ import annotations

import sys

import torch
import torch.distributed
from accelerate import PartialState

from fewfit.cli import main

if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        main()
    finally:
        state = PartialState()  # the one that the training made
        sys.stdout.write(f"process of {state.num_processes}, {torch.distributed.get_backend()}\n")
        state.destroy_process_group()
