"""Stand-ins for the images that the Compose files name: the native builds, laid out as the published images are.

What matters of a published image is kept: who it runs as, its entry point, working directory, volumes and their owner,
whether there is a shell in it. Busybox is the machine's own. Grafana cannot be had, so nobody stands in for it.
"""

from __future__ import annotations

import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from deploy.native.build import binary
from deploy.native.programs import PROGRAMS

from .engine import Podman

APPLETS = ("sh", "wget", "nslookup", "cat", "cp", "ls", "nc", "id", "touch", "sleep", "true", "env")
BUSYBOX = "localhost/busybox"
_NOBODY = 65534
_CAP_NET_BIND_SERVICE = 10


@dataclass(frozen=True)
class Image:
    """``place`` is where the program stands in it."""

    name: str
    place: str
    recipe: str
    base: str = "scratch"


IMAGES = {
    "collector": Image(
        "docker.io/otel/opentelemetry-collector-contrib:{release}",
        "/otelcol-contrib",
        'USER 10001:10001\nENTRYPOINT ["/otelcol-contrib"]\nCMD ["--config", "/etc/otelcol-contrib/config.yaml"]',
    ),
    "prometheus": Image(
        "docker.io/prom/prometheus:v{release}",
        "/bin/prometheus",
        f"COPY --chown={_NOBODY}:{_NOBODY} empty /prometheus\nUSER {_NOBODY}\nVOLUME /prometheus\nWORKDIR /prometheus\n"
        'ENTRYPOINT ["/bin/prometheus"]\nCMD ["--config.file=/etc/prometheus/prometheus.yml"]',
        BUSYBOX,
    ),
    "jaeger": Image(
        "docker.io/jaegertracing/jaeger:{release}",
        "/cmd/jaeger/jaeger-linux",
        'ENV JAEGER_LISTEN_HOST=0.0.0.0\nVOLUME /tmp\nENTRYPOINT ["/cmd/jaeger/jaeger-linux"]\nUSER 10001',
        BUSYBOX,
    ),
    "thanos": Image(
        "quay.io/thanos/thanos:v{release}", "/bin/thanos", 'USER 1001\nENTRYPOINT ["/bin/thanos"]', BUSYBOX
    ),
    "caddy": Image(
        "docker.io/library/caddy:{release}",
        "/usr/bin/caddy",
        "COPY empty /config/caddy\nCOPY empty /data/caddy\nENV XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data\n"
        'WORKDIR /srv\nCMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]',
        BUSYBOX,
    ),
}


def build(podman: Podman, context: Path, program: str) -> None:
    """Make its image, from the empty folder ``context``."""
    image = IMAGES[program]
    (context / "empty").mkdir()
    built = context / Path(image.place).name
    shutil.copy(binary(program), built)
    if program == "caddy":
        _may_bind_low_ports(built)
    recipe = f"FROM {image.base}\nCOPY {built.name} {image.place}\n{image.recipe}\n"
    _build(podman, context, image.name.format(release=PROGRAMS[program].release), recipe)


def busybox(podman: Podman, context: Path) -> None:
    """Make the base of some of them, which is a shell for questions as well; ``context`` is a new folder."""
    binaries = context / "root" / "bin"
    binaries.mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", binaries)
    for applet in APPLETS:
        (binaries / applet).symlink_to("busybox")
    (context / "root" / "tmp").mkdir(mode=0o1777)
    _build(podman, context, BUSYBOX, "FROM scratch\nCOPY root /\nENV PATH=/bin:/usr/bin\n")


def _build(podman: Podman, context: Path, name: str, recipe: str) -> None:
    (context / "Dockerfile").write_text(recipe)
    podman("build", "--quiet", "--tag", name, str(context))


def _may_bind_low_ports(program: Path) -> None:
    """As ``setcap cap_net_bind_service=+ep`` does: where all capabilities are dropped, such a program can't be run."""
    revision_and_effective = 0x02000001
    os.setxattr(
        program, "security.capability", struct.pack("<5I", revision_and_effective, 1 << _CAP_NET_BIND_SERVICE, 0, 0, 0)
    )
