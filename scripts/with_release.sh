#!/bin/sh
# with_release.sh PYTHON COMMAND ...: run a command whose OpenHands is that of PYTHON. Several run side by side, so what
# it says comes in one piece, below the release's number.
python=$1
shift
code=0
said=$("$@" 2>&1) || code=$?
release=$("$python" -c 'from importlib.metadata import version; print(version("openhands-sdk"))')
printf '== openhands-sdk %s: %s\n%s\n' "$release" "$*" "$said"
exit "$code"
