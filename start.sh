#!/bin/sh
# Starts MOVA Studio. What follows goes to launch.py: sh start.sh doctor, sh start.sh update FILE, ...
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
python=$(cat "$root/.uv/path" 2>/dev/null || true)
if ! [ -x "$python" ]; then
    sh "$root/install.sh" --no-shortcuts
    python=$(cat "$root/.uv/path")
fi
exec "$python" "$root/launch.py" "$@"
