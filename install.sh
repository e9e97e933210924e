#!/bin/sh
# Sets up MOVA Studio in this folder. Needs no administrator, no git and no Python.
#   sh install.sh [--no-shortcuts]
# MOVA_UV_URL names a mirror of uv's releases. Run it again at any time: it goes on where it stopped.
set -eu
UV=0.13.0
PYTHON=3.12
URL=${MOVA_UV_URL:-https://github.com/astral-sh/uv/releases/download/$UV}
root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
cd -- "$root"
own=$root/.uv
{ mkdir -p "$own" && echo '*' >"$own/.gitignore"; } 2>/dev/null || { echo "Cannot write in $root. Put the folder where you may write, such as your home." >&2; exit 1; }

case $(uname -s)-$(uname -m) in
Linux-x86_64) target=x86_64-unknown-linux-gnu sum=1468ebd5a5541121837c5a2817b9972ba6090fa6caa3d142620850a47fb75154 ;;
Linux-aarch64) target=aarch64-unknown-linux-gnu sum=3ccfb6af6e242433eb552f7d9676abd5412c6595c497e990d9c8cb7b5bd4d2c3 ;;
Darwin-arm64) target=aarch64-apple-darwin sum=a9c1b29002cf3c83f07fa9cd8a887a3be0107d90e23189721221e7257db8e3d6 ;;
*) target='' ;;
esac

fetch() { # URL FILE
    if command -v curl >/dev/null; then curl -fL --retry 2 --connect-timeout 15 --progress-bar -o "$2" "$1"
    elif command -v wget >/dev/null; then wget -q --tries=3 --timeout=15 -O "$2" "$1"
    else echo "Neither curl nor wget is here." >&2; return 1; fi
}
sha() { if command -v sha256sum >/dev/null; then sha256sum <"$1"; else shasum -a 256 <"$1"; fi | cut -d' ' -f1; }
get_uv() { # the pinned uv, verified, put in place in one step
    [ "$("$own/uv" --version 2>/dev/null | cut -d' ' -f2)" = "$UV" ] && return
    [ -n "$target" ] || return 1
    echo "Fetching uv $UV, which brings Python (20 MB) ..." >&2
    find "$own" -maxdepth 1 -name "new.*" -mmin +60 -exec rm -rf {} + # of runs that were killed
    work=$(mktemp -d "$own/new.XXXXXX") || return 1
    fetch "$URL/uv-$target.tar.gz" "$work/uv.tar.gz" || { rm -rf "$work"; return 1; }
    if [ "$(sha "$work/uv.tar.gz")" != "$sum" ]; then
        rm -rf "$work"; echo "What came is not uv $UV: its sha256 is another one. It was deleted." >&2; return 1
    fi
    tar -xzf "$work/uv.tar.gz" -C "$work" && mv -f "$work/uv-$target/uv" "$own/uv"; rm -rf "$work"
    [ -x "$own/uv" ]
}
uv_python() { # a Python of our own, in this folder
    get_uv || return 1
    export UV_PYTHON_INSTALL_DIR="$own/python" UV_CACHE_DIR="$own/cache"
    "$own/uv" python install --quiet --no-bin "$PYTHON" && "$own/uv" python find --managed-python "$PYTHON"
}
system_python() { # this machine's, where it is new enough and whole
    for name in python3.12 python3.13 python3.11 python3; do
        "$name" -c 'import sys, venv, ensurepip, ssl; assert sys.version_info >= (3, 11); print(sys.executable)' 2>/dev/null && return
    done
    return 1
}
python=$(uv_python | tail -n 1) && [ -x "$python" ] || python=$(system_python) || {
    echo "Python could not be fetched, and this machine has none from 3.11 on. Check the connection (or name a mirror" >&2
    echo "in MOVA_UV_URL) and start install.sh again; or install Python from python.org first." >&2; exit 1; }
printf '%s\n' "$python" >"$own/path.$$" && mv -f "$own/path.$$" "$own/path"
"$python" launch.py setup
[ "${1:-}" = --no-shortcuts ] || "$python" launch.py shortcuts || echo "(no shortcuts were made; start.sh starts the studio)"
echo "Done. Start the studio with: sh start.sh"
