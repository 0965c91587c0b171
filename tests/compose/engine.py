"""A container engine of the tests' own: Podman with runc, its configuration, storage and networks in a folder.

Nothing of the machine's is read or written: not /etc/containers, not the user's folder. Containers are on bridges in a
namespace of this process (``own_machine``), so the customary ports are free, and no address can collide.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any

TOOLS = ("podman", "runc", "iptables", "busybox")
"""What has to be on PATH; scripts/install_containers.sh installs them, and what they need."""
_HELPERS = ("/usr/lib/podman/netavark", "/usr/libexec/podman/netavark")
_TIMEOUT_S = 200
LOADING_S = 900
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1
"""SIOCGIFFLAGS, SIOCSIFFLAGS and IFF_UP of Linux' <linux/sockios.h> and <linux/if.h>."""


def missing() -> str:
    """Why containers cannot run here; nothing where they can."""
    if not hasattr(os, "unshare"):
        return "this is not Linux"
    if os.geteuid() != 0:
        return "this is not root"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if not any(Path(helper).exists() for helper in _HELPERS):
        absent.append("netavark")
    return f"{', '.join(absent)} not installed: sh scripts/install_containers.sh" if absent else ""


def own_machine() -> int:
    """Leave the machine's network and /run: this thread, the threads it starts from now on, and all their children.

    In there is a loopback interface and no other, and an empty /run: Podman keeps there what it knows of networks,
    whoever uses it, and where it finds systemd's socket it would leave timers behind. Returns a descriptor of the
    network that was left. Raises OSError where that is not allowed.
    """
    left = os.open("/proc/self/ns/net", os.O_RDONLY)
    os.unshare(os.CLONE_NEWNET | os.CLONE_NEWNS)
    for words in (("--make-rprivate", "/"), ("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")):
        if (done := subprocess.run(["mount", *words], capture_output=True, text=True, check=False)).returncode:
            raise PermissionError(done.stderr.strip())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(any_socket, _GET_FLAGS, request), 16)
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", flags | _UP))
    return left


class Podman:
    """The command, with ``folder`` for all that it keeps; ``network`` is a descriptor of the machine's own."""

    def __init__(self, folder: Path, network: int) -> None:
        self._folder = folder
        self._outside = ("nsenter", f"--net=/proc/{os.getpid()}/fd/{network}")
        (folder / "networks").mkdir(parents=True)
        (folder / "containers.conf").write_text(_CONTAINERS.format(folder=folder))
        (folder / "storage.conf").write_text(_STORAGE.format(folder=folder))
        (folder / "policy.json").write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        (folder / "registries.conf").write_text("")
        home = folder / "home"
        policy = home / ".config" / "containers" / "policy.json"
        policy.parent.mkdir(parents=True)
        policy.write_text((folder / "policy.json").read_text())
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
        }

    def __call__(self, *words: str, check: bool = True) -> str:
        """Standard output of ``podman WORDS``."""
        done = self.run("podman", *words)
        assert not check or done.returncode == 0, f"podman {' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def run(
        self, *words: str, cwd: Path | None = None, stdin: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            cwd=cwd,
            env=self.environment | variables,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )

    def loads(self, *words: str) -> None:
        """A command that needs the machine's network: what it loads may take minutes. Raises OSError where it fails."""
        done = subprocess.run(
            (*self._outside, *words),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LOADING_S,
            check=False,
        )
        if done.returncode:
            raise OSError(f"{' '.join(words[:2])}: {(done.stdout + done.stderr)[-2000:]}")

    def inspect(self, container: str) -> Any:
        return json.loads(self("inspect", "--type", "container", container))[0]

    def logs(self, container: str) -> str:
        done = self.run("podman", "logs", container)
        return done.stdout + done.stderr

    def end(self) -> None:
        """Stop and remove every container, volume and network; images stay."""
        # They go several at once, and one that others depend on does not go before these.
        while self("ps", "--all", "--quiet"):
            self("rm", "--all", "--force", "--depend", "--time", "0", check=False)
        self("volume", "prune", "--force", check=False)
        self("network", "prune", "--force", check=False)


# Some machines lack CAP_SYS_RESOURCE (no limit can be raised) and have both kinds of cgroups, which crun refuses.
_CONTAINERS = """\
[containers]
default_ulimits = ["nofile=10000:10000", "nproc=4000:4000"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{folder}/tmp"
volume_path = "{folder}/volumes"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""
_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{folder}/images"
runroot = "{folder}/run"
[storage.options.overlay]
skip_mount_home = "true"
"""
