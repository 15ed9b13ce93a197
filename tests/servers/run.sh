#!/bin/sh
# Build and start servers that nobody here wrote, and run fit, predict and doctor against them over
# the loopback. Compiles llama.cpp: several minutes, once. Needs the checkpoint stories260K under
# $FEWFIT_SHARED/models.
set -eu
python=${1:?usage: run.sh PYTHON, the one that has fewfit and its tests}
servers=${FEWFIT_SERVERS:-.venv-servers}
if [ ! -x "$servers/bin/llama-ready" ]; then
    "$python" -m venv "$servers"
    "$servers/bin/python" -m pip install --quiet --constraint constraints.txt \
        "llama-cpp-python[server]" gguf safetensors torch "transformers[serving]"
    ln -s python "$servers/bin/llama-ready"
fi
FEWFIT_SERVERS=$servers exec "$python" -m pytest -v tests/servers
