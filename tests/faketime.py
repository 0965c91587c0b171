"""Where Debian's faketime has its library (apt-get install faketime): by LD_PRELOAD a process's clock is another."""

from __future__ import annotations

from pathlib import Path

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
