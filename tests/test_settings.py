"""Settings are read once, and what cannot be used is said in one line that names the variable."""

from __future__ import annotations

import pytest

from openhands_otel.semconv import BudgetScope
from openhands_otel.settings import Settings, SettingsError, ViewerSettings, load

VARIABLE = "OPENHANDS_OTEL_BUDGETS"


def test_budgets_are_read_by_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(Settings).budgets == {}
    monkeypatch.setenv(VARIABLE, " day = 20, team=100.5,")
    assert load(Settings).budgets == {BudgetScope.DAY: 20.0, BudgetScope.TEAM: 100.5}


@pytest.mark.parametrize("value", ["20", "week=20", "day=", "day=much", "day=0", "day=-1", "day=nan", "day=inf"])
def test_a_budget_that_is_none_is_refused_in_one_line(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(SettingsError) as refused:
        load(Settings)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{VARIABLE}: ")
    assert value in line


@pytest.mark.parametrize("name", ["Mars/Olympus", "../../etc/passwd", "UTC+2"])
def test_a_zone_that_is_not_known_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_TIMEZONE", name)
    with pytest.raises(SettingsError, match=r"^OPENHANDS_OTEL_VIEWER_TIMEZONE: .*is no time zone") as error:
        load(ViewerSettings)
    assert "\n" not in str(error.value)
