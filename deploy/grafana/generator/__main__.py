"""``python -m deploy.grafana.generator [FOLDER]`` writes the dashboards, one JSON file each."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.generator.latency import latency
from deploy.grafana.generator.pipeline import pipeline
from deploy.grafana.generator.runs import runs
from deploy.grafana.generator.spend import spend

FOLDER: Final = Path(__file__).resolve().parents[1] / "dashboards"


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for made in (spend(), runs(), latency(), pipeline()):
        text = JSONEncoder(sort_keys=True, indent=2).encode(made)
        (folder / f"{made.uid}.json").write_text(f"{text}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
