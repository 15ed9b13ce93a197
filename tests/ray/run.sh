#!/bin/sh
# Run docs/scale/label_parquet.py on a local Ray of two workers, kill it and go on. Ray is 600 MB with
# what it needs, and so has an environment of its own.
set -eu
python=${1:?usage: run.sh PYTHON, of the environment to make}
ray=${FEWFIT_RAY:-.venv-ray}
if [ ! -x "$ray/bin/ray-ready" ]; then
    "$python" -m venv "$ray"
    "$ray/bin/python" -m pip install --quiet --editable '.[parquet]' 'ray[data]>=2.60' pytest pytest-timeout
    ln -s python "$ray/bin/ray-ready"
fi
FEWFIT_RAY=$ray exec "$ray/bin/python" -m pytest -v -W default -p no:cacheprovider --timeout 600 tests/ray
