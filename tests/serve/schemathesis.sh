#!/bin/sh
# Start a server of two small tasks that may be fitted anew, ask it whatever its OpenAPI page allows
# and forbids, and say what broke a promise of the page: a status 500 and above, another status or
# body than is documented, a wrong body that is taken.
set -eu
python=${1:?usage: schemathesis.sh PYTHON, the one that has fewfit and its tests}
tools=${FEWFIT_SCHEMATHESIS:-.venv-schemathesis}
if [ ! -x "$tools/bin/schemathesis" ]; then
    "$python" -m venv "$tools"
    "$tools/bin/python" -m pip install --quiet "schemathesis==4.32.5"
fi
folder=$(mktemp -d)
server=
trap 'test -z "$server" || kill "$server"; rm -rf "$folder"' EXIT
"$python" -m tests.serve.helpers "$folder/tasks"
FEWFIT_CACHE=$folder/cache "$python" -m fewfit serve "$folder/tasks" --port 0 --allow-fit \
    --model fake --max-texts 50 2>"$folder/said" &
server=$!
until grep -q http:// "$folder/said"; do
    kill -0 "$server"
    sleep 0.1
done
url=$(sed -n 's/.*\(http:[^ ]*\).*/\1/p' "$folder/said")
"$tools/bin/schemathesis" --config-file tests/serve/schemathesis.toml run "${url}openapi.json" \
    --max-examples "${EXAMPLES:-100}" --seed "${SEED:-0}" --request-timeout 20 \
    --generation-database none
