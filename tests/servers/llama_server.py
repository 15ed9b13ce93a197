"""llama.cpp's own server, out of the wheel xllamacpp: ``python llama_server.py GGUF --port N``."""

from __future__ import annotations

import sys
import time
from typing import Any


def main(gguf: str, port: str) -> None:
    import xllamacpp  # pyright: ignore[reportMissingImports]

    params: Any = xllamacpp.CommonParams()
    params.model.path, params.port = gguf, int(port)
    params.n_ctx, params.n_parallel = 8192, 4
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.use_jinja = True
    kept = xllamacpp.Server(params)
    while kept:
        time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[3])
