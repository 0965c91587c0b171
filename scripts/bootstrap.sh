#!/bin/sh
# Makes .venv agree with uv.lock, from whatever this machine has: any Python >= 3.12 on PATH, under pyenv or known to
# uv; uv itself is fetched with pip when it is missing. Costs nothing when there is nothing to do.
#
#   scripts/bootstrap.sh                 make .venv, or leave it when it is up to date
#   scripts/bootstrap.sh --print-python  only say which Python it would be made with
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
venv=$root/.venv
cache=$root/.cache
stamp=$venv/.bootstrap-stamp
# The release that is tested most comes first; a Python that is newer than all of them is the last resort.
names='python3.13 python3.12 python3.14 python3 python'

say() { printf 'bootstrap: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# A shim or a broken install only counts when it runs. What it prints is the real interpreter: no shim whose choice
# depends on .python-version, and not the interpreter of an activated virtual environment.
probe='
import sys
from importlib.util import find_spec
new = sys.version_info >= (3, 12) and sys.implementation.name == "cpython"
if new and (len(sys.argv) < 2 or find_spec("ensurepip") or find_spec("pip")):
    print(getattr(sys, "_base_executable", None) or sys.executable)
'

try_python() { # file, and a word when pip is needed
    [ -f "$1" ] && [ -x "$1" ] || return 1
    python=$(cd / && "$1" -I -c "$probe" ${2:+"$2"} 2>/dev/null </dev/null) && [ -n "$python" ]
}

search_python() { # a word when pip is needed; sets $python
    for name in $names; do
        saved_ifs=$IFS
        IFS=:
        for directory in $PATH; do
            IFS=$saved_ifs
            try_python "${directory:-.}/$name" "$@" && return 0
        done
        IFS=$saved_ifs
        for file in "${PYENV_ROOT:-${HOME:-/nonexistent}/.pyenv}"/versions/*/bin/"$name"; do
            try_python "$file" "$@" && return 0
        done
    done
    python=
    return 1
}

find_uv() { # sets $uv to one that runs and knows dependency groups (0.5 and later)
    for uv in "$(command -v uv || :)" "${HOME:-}/.local/bin/uv" "${HOME:-}/.cargo/bin/uv" "$cache/uv/bin/uv"; do
        [ -n "$uv" ] || continue
        case $("$uv" --version 2>/dev/null </dev/null) in
            'uv 0.'[0-4].*) ;;
            'uv '*) return 0 ;;
        esac
    done
    uv=
    return 1
}

ask_uv_for_python() {
    python=$("$uv" python find --no-project '>=3.12' 2>/dev/null) && [ -n "$python" ] && return 0
    say 'no Python >= 3.12 here, asking uv for one'
    "$uv" python install --quiet 3.13 >/dev/null 2>&1 || return 1
    python=$("$uv" python find --no-project 3.13 2>/dev/null) && [ -n "$python" ]
}

find_python() { # sets $python, and $uv where there is one
    if find_uv; then
        search_python || ask_uv_for_python ||
            die "no Python 3.12 or newer found on PATH or under pyenv, and uv could not fetch one: install Python 3.13 and run this again"
    else
        search_python with-pip && return 0
        search_python &&
            die "$python has neither venv nor pip: install them (python3-venv on Debian and Ubuntu) or install uv, and run this again"
        die "no Python 3.12 or newer found on PATH or under pyenv: install Python 3.13, or uv, which brings one, and run this again"
    fi
}

fetch_uv() { # with pip, into .cache; sets $uv
    say 'fetching uv'
    mkdir -p "$cache"
    "$python" -m venv --clear "$cache/uv" >/dev/null 2>&1 ||
        "$python" -m venv --clear --without-pip "$cache/uv" || die "$python cannot make a virtual environment"
    pip=$cache/uv/bin/python
    if "$pip" -m pip --version >/dev/null 2>&1; then
        "$pip" -m pip install --quiet --disable-pip-version-check "uv>=0.8" >&2
    else
        "$python" -m pip --python "$pip" install --quiet --disable-pip-version-check "uv>=0.8" >&2
    fi || die 'pip could not install uv (see above): is the package index reachable?'
    uv=$cache/uv/bin/uv
}

# pip knows mirrors and proxies that uv was not told of; versions and hashes are the locked ones all the same.
install_with_pip() {
    say 'uv could not install; trying pip with the same locked versions'
    mkdir -p "$cache"
    "$uv" export --quiet --frozen --no-emit-project --output-file "$cache/requirements.txt" >/dev/null &&
        "$python" -m venv --clear "$venv" >&2 &&
        "$venv/bin/python" -m pip install --quiet --upgrade pip >&2 &&
        "$venv/bin/python" -m pip install --quiet --require-hashes --requirement "$cache/requirements.txt" >&2 &&
        "$venv/bin/python" -m pip install --quiet --no-deps --editable "$root" >&2
}

state() { # what .venv depends on; the path too, since a virtual environment cannot be moved
    printf '%s\n' "$root"
    cat "$root/pyproject.toml" "$root/uv.lock" "$0"
}

if [ "${1:-}" = --print-python ]; then
    find_python
    printf '%s\n' "$python"
    exit 0
fi

wanted=$(state | cksum)
if [ -x "$venv/bin/openhands-otel" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] &&
    "$venv/bin/python" -c '' 2>/dev/null; then
    exit 0
fi

unset VIRTUAL_ENV UV_PROJECT_ENVIRONMENT UV_PYTHON PYTHONHOME || :
# An environment that works keeps its Python.
if ! try_python "$venv/bin/python" || ! find_uv; then
    find_python
fi
[ -n "$uv" ] || fetch_uv
say "installing what uv.lock says into .venv with $python (the first time takes a minute or two)"
cd "$root"
UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true} \
    "$uv" sync --quiet --locked --python "$python" >&2 || install_with_pip ||
    die 'could not install the packages (see above): is the package index reachable?'
printf '%s\n' "$wanted" >"$stamp"
