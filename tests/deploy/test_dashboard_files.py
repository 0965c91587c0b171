"""The dashboards' files: valid, up to date, complete, and of names that exist. Their figures: ``tests/stack``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import EXPRESSIONS, FILES, panels
from deploy.grafana.generator.__main__ import main
from deploy.grafana.generator.queries import VARIABLES
from grafana_model import problems
from prometheus_names import COLLECTOR, KNOWN, metric_names

ROOT = Path(__file__).resolve().parents[2]
RECORDING = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules" / "recording.yml").read_text())
RECORDS = {rule["record"] for group in RECORDING["groups"] for rule in group["rules"]}
WIDTH = 24

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def test_what_is_committed_is_what_the_generator_makes(tmp_path: Path) -> None:
    main(tmp_path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {f.name: f.read_text() for f in FILES}


@each_file
def test_it_is_valid_by_grafanas_model(file: Path) -> None:
    assert problems(json.loads(file.read_text())) == []


def test_the_model_refuses_what_is_none() -> None:
    wrong = json.loads(FILES[0].read_text())
    stat = next(panel for panel in wrong["panels"] if panel["type"] == "stat")
    stat["titel"] = "misspelt"
    stat["fieldConfig"]["defaults"]["unti"] = "s"
    stat["gridPos"]["w"] = "wide"
    stat["options"]["graphMode"] = "round"
    told = " ".join(problems(wrong))
    assert all(name in told for name in ("titel", "unti", "grid_pos.w", "graph_mode"))


@each_file
def test_each_panel_says_what_it_shows_in_which_unit_and_asks_the_chosen_data_source(file: Path) -> None:
    for panel in panels(file):
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert {source["uid"] for source in sources} == {"${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0


@each_file
def test_each_selects_by_service_and_label_and_all_leaves_nothing_out(file: Path) -> None:
    given = {each["name"]: each for each in json.loads(file.read_text())["templating"]["list"]}
    for name in ("job", *VARIABLES):
        assert given[name]["includeAll"]
        # Fits a series without the label as well, which the list of its values would not.
        assert given[name]["allValue"] == ".*"
        assert given[name]["multi"]
    used = {
        name for each in EXPRESSIONS if each.dashboard == file.stem for name in re.findall(r"\$([a-z]+)", each.text)
    }
    assert used == {"job", *VARIABLES}


@each_file
def test_panels_have_ids_and_titles_of_their_own_and_do_not_overlap(file: Path) -> None:
    everything: list[dict[str, Any]] = json.loads(file.read_text())["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    assert len({panel["title"] for panel in panels(file)}) == len(panels(file))
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= WIDTH
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=str)
def test_each_name_is_one_that_is_sent_or_recorded(expression: Any) -> None:
    used = metric_names(expression.text)
    assert used
    assert used <= KNOWN | COLLECTOR | RECORDS


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=str)
def test_money_is_never_a_sum_of_increases_and_a_rate_fits_the_resolution(expression: Any) -> None:
    assert "increase(" not in expression.text
    assert set(re.findall(r"rate\([^[]*\[([^]]+)\]", expression.text)) <= {"$__rate_interval", "5m"}


def test_every_metric_has_its_place_in_a_dashboard_or_a_rule() -> None:
    """Those left out say something twice, or something for which there is no room, or what only a viewer acts on."""
    rules = " ".join(rule["expr"] for group in RECORDING["groups"] for rule in group["rules"])
    used = metric_names(" ".join(expression.text for expression in EXPRESSIONS) + " " + rules)
    families = {re.sub("_(bucket|count|sum)$", "", name) for name in used}
    unused = {name for name in {re.sub("_(bucket|count|sum)$", "", name) for name in KNOWN} if name not in families}
    assert unused == {
        "gen_ai_client_inference_time_per_output_chunk_seconds",
        "openhands_conversation_budget_limit_USD",
        "openhands_conversation_first_llm_call_seconds",
        "openhands_conversation_last_llm_call_seconds",
        "openhands_conversation_title_ratio",
        "openhands_conversation_cache_savings_USD_total",
        "openhands_conversation_llm_time_seconds_total",
        "openhands_conversation_longest_llm_call_seconds",
        "openhands_conversation_outcome_ratio",
        "openhands_conversation_restored_cost_USD",
        "openhands_conversation_tool_calls_total",
        "openhands_conversation_unpriced_calls_total",
        "openhands_otel_beat_interval_seconds",
        "openhands_otel_heartbeat_interval_seconds",
    }
