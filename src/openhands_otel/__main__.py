"""``python -m openhands_otel``: the command, for where its script is not on PATH."""

from __future__ import annotations

import sys

from openhands_otel._internal.cli import main

sys.exit(main())
