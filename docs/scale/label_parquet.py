"""Label Parquet files that are larger than memory, with Ray Data.

    python docs/scale/label_parquet.py topics/ 'mails/' labelled/ --workers 2 --id id

Killed, or stopped by an error: the same command goes on. Rows that are written are not read again,
and answers that were paid for and not yet written come from the store.
"""

from __future__ import annotations

import argparse
import math
import os
import sys

import ray
from ray.data.checkpoint import CheckpointConfig

import fewfit
from fewfit.bulk import Predictor

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("artifact")
parser.add_argument("input", help="a Parquet file, or a folder of them")
parser.add_argument("output", help="a folder; that of an earlier run, to go on with it")
parser.add_argument("--address", help="of a cluster; left out, Ray is started on this machine")
parser.add_argument("--id", required=True, help="a column in which no two rows are the same")
parser.add_argument("--workers", type=int, default=2, help="each holds the model once")
parser.add_argument("--cpus", type=float, default=1, help="of each worker")
parser.add_argument("--gpus", type=float, default=0, help="of each worker")
parser.add_argument("--batch", type=int, default=4096, help="rows that a worker takes at once")
parser.add_argument("--block-mb", type=float, default=8, help="written at once, about")
parser.add_argument("--model", help="where it is not what the artifact names")
parser.add_argument("--store", default="default", help="a file on a local disk, for answers")
parser.add_argument("--checkpoint", help="where what is written is noted; OUTPUT.checkpoint")
options = parser.parse_args()

# What Ray Data reads, writes and looks up with has a CPU each; with none left it waits for ever.
needed = options.workers * options.cpus + 2
if options.address is None:  # Ray counts CPUs and does not bind them: a few more than there are do
    ray.init(num_cpus=max(os.cpu_count() or 1, math.ceil(needed)))
else:
    ray.init(address=options.address)
there = ray.cluster_resources().get("CPU", 0)
if there < needed:
    sys.exit(
        f"error: {options.workers} workers of {options.cpus:g} CPUs, and two to read and write: "
        f"there are {there:g}, and Ray would wait for ever; give fewer --workers or --cpus"
    )

# A broken artifact is refused here, before a worker starts; weights are loaded by the workers.
classifier = fewfit.load(options.artifact, model=options.model, store=options.store, errors="nan")
context = ray.data.DataContext.get_current()
context.target_max_block_size = int(options.block_mb * 2**20)
context.checkpoint_config = CheckpointConfig(
    id_column=options.id,
    checkpoint_path=options.checkpoint or options.output.rstrip("/") + ".checkpoint",
    delete_checkpoint_on_success=False,  # so that the command, given again, does nothing
)
(
    ray.data.read_parquet(options.input)
    .map_batches(
        Predictor,
        fn_constructor_args=(classifier,),
        batch_format="pyarrow",
        batch_size=options.batch,
        compute=ray.data.ActorPoolStrategy(size=options.workers),
        num_cpus=options.cpus,
        num_gpus=options.gpus,
    )
    .write_parquet(options.output, mode="append")
)
