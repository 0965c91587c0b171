"""The viewer as what an agent server calls a backend of an extension, from its release 1.58 on: started by the server.

The server unpacks a tar.gz, starts a program in it with a port of its own choice, asks that port whether all is well,
and ends the program when it ends itself. The program's environment is PATH, language and a HOME of its own. Here it is
a shell script, which sets what the viewer would have in the terminal of whoever installed it, and finds a Python.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import shlex
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from openhands_otel._internal import api_paths
from openhands_otel._internal.launch.bundle import write_packages

ARCHIVE: Final = "viewer.tar.gz"
_PLATFORMS: Final = ("linux-amd64", "linux-arm64")
"""All that agent servers know; nothing in the archive is compiled."""
_PROGRAM: Final = "viewer"
_INHERITED: Final = ("LANG", "LC_ALL", "LC_CTYPE", "PATH", "TMPDIR", "TZ")
"""All that may be."""
START_S: Final = 120
"""How long the server waits until the viewer answers."""
_START: Final = (
    "import os, sys; lib = sys.argv.pop(1); "
    "sys.path.extend(os.path.join(lib, name) for name in (sorted(os.listdir(lib)) if os.path.isdir(lib) else ())); "
    "from openhands_otel._internal.cli import main; sys.exit(main(['view', *sys.argv[1:]]))"
)
_SCRIPT: Final = """\
#!/bin/sh
# Starts the viewer for Agent Canvas' agent server, which looks for this folder in the command line of what it started.
{exports}
for python in {pythons}; do
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
    exec "$python" -P -c {start} "${{0%/*}}/lib" "$@"
  fi
done
echo 'openhands-otel: there is no Python 3.12 or newer to start the viewer with: openhands-otel canvas install' >&2
exit 1
"""


@dataclass(frozen=True, slots=True)
class Backend:
    """The archive, and what the extension's manifest says of it."""

    archive: bytes

    @property
    def manifest(self) -> dict[str, Any]:
        """In the form of ``CanvasExtensionBackend``."""
        artifact = {"path": ARCHIVE, "sha256": hashlib.sha256(self.archive).hexdigest()}
        return {
            "schema_version": 1,
            "artifacts": dict.fromkeys(_PLATFORMS, artifact),
            "argv": [f"{{artifact_dir}}/{_PROGRAM}", "--also-port", "{port}"],
            "health": {"path": api_paths.HEALTH, "timeout_seconds": START_S},
            "inherit_environment": list(_INHERITED),
        }


def backend_here(python: str, variables: Mapping[str, str]) -> Backend:
    """For an agent server on this machine: ``python`` has this package, and the viewer gets ``variables``."""
    return Backend(_packed({_PROGRAM: (_script(variables, python), True)}))


def backend_elsewhere(variables: Mapping[str, str]) -> Backend:
    """For another machine: the server's own Python, which PATH names, has what is compiled; the rest is taken along.

    Raises BundleError and OSError where it cannot be put together.
    """
    with tempfile.TemporaryDirectory() as place:
        lib = Path(place, "lib")
        write_packages(lib, "viewer")
        files = sorted(file for file in lib.rglob("*") if file.is_file())
        taken = {str(file.relative_to(place)): (file.read_bytes(), False) for file in files}
    return Backend(_packed({_PROGRAM: (_script(variables), True), **taken}))


def _script(variables: Mapping[str, str], *pythons: str) -> bytes:
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items()))
    found = " ".join(map(shlex.quote, (*pythons, "python3")))
    return _SCRIPT.format(exports=exports, pythons=found, start=shlex.quote(_START)).encode("utf-8", "surrogateescape")


def _packed(files: Mapping[str, tuple[bytes, bool]]) -> bytes:
    """A tar.gz of contents by name, and whether they are programs. The same files make the same bytes."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
        for name, (content, is_program) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755 if is_program else 0o644
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()
