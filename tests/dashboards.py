"""The committed dashboards, and their expressions with Grafana's variables filled in."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "grafana" / "dashboards"
FILES = sorted(FOLDER.glob("*.json"))
RATE_INTERVAL = "1m"


@dataclass(frozen=True)
class Expression:
    """One target of a panel."""

    dashboard: str
    panel: str
    reference: str
    text: str
    instant: bool

    def over(self, seconds: int, **chosen: str) -> str:
        """As Grafana would send it with a range of so many seconds; of what nobody has ``chosen``, All."""
        filled = self.text.replace("$__rate_interval", RATE_INTERVAL)
        filled = filled.replace("$__interval_ms", "5000").replace("$__interval", "5s")
        filled = filled.replace("$__range_s", str(seconds)).replace("$__range", f"{seconds}s")
        filled = re.sub(r"\$([a-z]+)", lambda variable: chosen.get(variable[1], ".*"), filled)
        assert "$" not in filled, filled
        return filled

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.panel} {self.reference}"


def panels(file: Path) -> list[dict[str, Any]]:
    """All that are no row."""
    return [panel for panel in json.loads(file.read_text())["panels"] if panel["type"] != "row"]


EXPRESSIONS = [
    Expression(file.stem, panel["title"], target["refId"], target["expr"], target.get("instant", False))
    for file in FILES
    for panel in panels(file)
    for target in panel["targets"]
]
