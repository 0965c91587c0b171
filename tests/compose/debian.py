"""Stand-ins for the images that examples/remote_agent_server/Dockerfile builds on, made of Debian's packages and of uv.

Of OpenHands' image what the recipe relies on is kept: the user, the home, ``tini``, a shell, certificates. uv would
load a Python of its own; here it finds Debian's in the place where it keeps those that it has loaded.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
from pathlib import Path

from deploy.native.build import cache
from deploy.native.stack import ROOT

from .engine import Podman

DOCKERFILE = ROOT / "examples" / "remote_agent_server" / "Dockerfile"
BUILDER = "mmdebstrap"
_SUITE, _PYTHON = "trixie", "3.13"
_PACKAGES = ("bash", "ca-certificates", "coreutils", "dash", "libc-bin", "libstdc++6", f"python{_PYTHON}", "tini")
_ARCHIVE = cache() / f"debian-{_SUITE}-{hashlib.sha256(' '.join(_PACKAGES).encode()).hexdigest()[:8]}.tar"
_UNPACKED = "localhost/debian"
_CERTIFICATES = "/etc/ssl/certs"
_OF_INDEX = re.compile(r"UV_(DEFAULT_)?INDEX(_URL)?|UV_FIND_LINKS|SSL_CERT_(FILE|DIR)|(https?|no)_proxy", re.IGNORECASE)
"""Variables that say how this machine reaches a package index."""
_USER = "10001:10001"
_RECIPE = f"""\
FROM {_UNPACKED}
COPY root /
COPY --chown={_USER} empty /home/openhands
COPY --chown={_USER} empty /workspace
ENV PATH=/usr/local/bin:/usr/bin HOME=/home/openhands UV_PYTHON_INSTALL_DIR=/opt/pythons
USER openhands
"""


def missing() -> str:
    """Why they cannot be made here; nothing where they can."""
    if _ARCHIVE.exists() or shutil.which(BUILDER):
        return ""
    return f"{BUILDER} is not installed: sh scripts/install_containers.sh"


def make_bases(podman: Podman, context: Path) -> None:
    """Make the images that the recipe begins with, from the empty folder ``context``.

    Raises OSError where Debian's packages cannot be had.
    """
    podman("import", "--quiet", str(_packages(podman)), _UNPACKED)
    _build(podman, _base(context / "base"), _named("ARG BASE="))
    _build(podman, _uv(context / "uv"), _named("COPY --from="))


def build_agent_server(podman: Podman, tag: str) -> None:
    """Build the recipe as its first lines say; raises OSError where it cannot be built."""
    certificates = ("--volume", f"{_CERTIFICATES}:{_CERTIFICATES}:ro")
    reaching = [
        option
        for name, value in os.environ.items()
        if _OF_INDEX.fullmatch(name)
        for option in ("--env", f"{name}={value}")
    ]
    recipe = ("--file", str(DOCKERFILE), "--tag", tag)
    podman.loads("podman", "build", "--network=host", *certificates, *reaching, *recipe, str(ROOT))


def _packages(podman: Podman) -> Path:
    """An archive of them, unpacked and not set up; made once."""
    if not _ARCHIVE.exists():
        _ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
        making = _ARCHIVE.with_name(f"{os.getpid()}.tar")
        podman.loads(BUILDER, "--variant=extract", f"--include={','.join(_PACKAGES)}", _SUITE, str(making))
        making.rename(_ARCHIVE)
    return _ARCHIVE


def _base(context: Path) -> Path:
    (context / "empty").mkdir(parents=True)
    root = context / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_text(f"openhands:x:{_USER}::/home/openhands:/bin/bash\n")
    (root / "etc" / "group").write_text(f"openhands:x:{_USER.partition(':')[0]}:\n")
    programs = root / "opt" / "pythons" / f"cpython-{_PYTHON}.0-linux-{platform.machine()}-gnu" / "bin"
    programs.mkdir(parents=True)
    (programs / f"python{_PYTHON}").symlink_to(f"/usr/bin/python{_PYTHON}")
    (context / "Dockerfile").write_text(_RECIPE)
    return context


def _uv(context: Path) -> Path:
    context.mkdir()
    shutil.copy(shutil.which("uv") or ROOT / ".cache" / "uv" / "bin" / "uv", context / "uv")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY uv /uv\n")
    return context


def _build(podman: Podman, context: Path, name: str) -> None:
    podman("build", "--quiet", "--tag", name, str(context))


def _named(before: str) -> str:
    """An image that the recipe names behind these words."""
    (image,) = re.findall(rf"^{before}(\S+)", DOCKERFILE.read_text(), flags=re.MULTILINE)
    return str(image)
