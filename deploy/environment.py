"""``make compose-up``: a random token and password for docker-compose.yml, made once, for the owner alone."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from deploy.native.stack import write_secret


def make(file: Path) -> bool:
    """Whether it was made; one that is there already stays as it is."""
    lines = (f"{name}={secrets.token_hex(32)}\n" for name in ("OTLP_TOKEN", "GRAFANA_PASSWORD"))
    try:
        write_secret(file, "".join(lines))
    except FileExistsError:
        return False
    return True


if __name__ == "__main__":
    made = Path(sys.argv[1])
    print(f"{made}: {'made, with a token and a password' if make(made) else 'kept as it is'}")
