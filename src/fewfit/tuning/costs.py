"""What tuning costs, measured: see ``measure.py``."""

from __future__ import annotations

from fewfit.tuning.adapter import Adapter
from fewfit.tuning.artifact import CostEntry
from fewfit.tuning.measure import Meter
from fewfit.tuning.method import Rows
from fewfit.tuning.reading import query_flops
from fewfit.tuning.trunk import Trunk


def costs_of(
    trunk: Trunk, rows: Rows, adapter: Adapter, meter: Meter
) -> tuple[float, float, CostEntry]:
    """Return the tokens and the operations of a query, and what a method's trainings took.

    Both are means over `rows`, in their first wording, of the input with all choices. What
    pre-trained vectors took is not counted.
    """
    encoded = [trunk.encoder.encode(row[0]) for row in rows]
    lengths = [len(e.before) + len(e.after) + sum(map(len, e.choices)) for e in encoded]
    with adapter.on(trunk.network):
        query = query_flops(trunk, encoded, adapter)
    entry = CostEntry(
        n_parameters=trunk.network.num_parameters(),
        encoder_decoder=trunk.kind == "seq2seq",
        training_flops=meter.flops,
        query_flops=query,
        saved_bytes=meter.saved_bytes,
        optimizer_bytes=meter.optimizer_bytes,
        seconds=round(meter.seconds, 3),
        steps=sum(meter.steps),
    )
    return sum(lengths) / len(lengths), query, entry
