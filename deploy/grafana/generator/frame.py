"""What all dashboards have in common: variables, time, links to each other, rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana.generator.panels import METRICS, Panel
from deploy.grafana.generator.queries import VARIABLES, name
from openhands_otel import semconv

TAG: Final = "openhands"


@dataclass(frozen=True, slots=True)
class Row:
    """Panels that answer one question."""

    title: str
    panels: Sequence[Panel]


def dashboard(uid: str, title: str, description: str, rows: Sequence[Row], since: str = "now-6h") -> models.Dashboard:
    """A whole dashboard; ``uid`` is also the file's name."""
    made = (
        builders.Dashboard(f"OpenHands: {title}")
        .uid(uid)
        .description(description)
        .tags([TAG])
        .time(since, "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            builders.DashboardLink("OpenHands")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(builders.DatasourceVariable("datasource").label("Metrics").type("prometheus"))
        .with_variable(builders.DatasourceVariable("traces").label("Traces").type("jaeger"))
        .with_variable(_choice("job", "Service", name(semconv.ACTIVE_CONVERSATIONS), "job"))
    )
    for variable, selected in VARIABLES.items():
        # The counters have what labels() sets, too, where it is allowed there.
        made = made.with_variable(_choice(variable, variable.capitalize(), name(semconv.COST), selected))
    for row in rows:
        made = made.with_row(builders.Row(row.title))
        for panel in row.panels:
            made = made.with_panel(panel)
    return _numbered(made.build())


def _choice(variable: str, title: str, metric: str, selected: str) -> builders.QueryVariable:
    """One or several values of a label, or all: then also what has none."""
    return (
        builders.QueryVariable(variable)
        .label(title)
        .datasource(METRICS)
        .query(f"label_values({metric}, {selected})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _numbered(made: models.Dashboard) -> models.Dashboard:
    # An id of its own makes a panel's address last.
    for number, panel in enumerate(made.panels or [], start=1):
        panel.id_val = number
    return made
