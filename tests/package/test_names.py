"""Each name that we send under either switch, held to the newest package of OpenTelemetry's conventions.

``weaver``, which checks against a registry, comes in no package that could be installed, and the registry of the newest
GenAI names in none either: those stand in ``NEWEST``, as they were read there, until a package has them.
"""

from __future__ import annotations

import json

import pytest

from openhands_otel import semconv
from openhands_otel.semconv import Metric

from .test_installs import OWN, WANTED, interpreter, run, uv  # noqa: F401

pytestmark = [
    pytest.mark.skipif(WANTED != "full", reason="needs a package index: make test-package"),
    pytest.mark.timeout(900),
]
THEIRS = ("gen_ai.", "server.", "error.", "service.", "deployment.", "otel.")
NEWEST = {
    *(metric.name for metric in semconv.NEWEST_ONLY),
    *(metric.name for metric in semconv.TOKEN_COUNTERS.values()),
    *(each.name for each in (semconv.RUN_DURATION, semconv.RUN_CALLS, semconv.RUN_TOOL_CALLS, semconv.TOOL_DURATION)),
    semconv.TOKEN_MODALITY,
    semconv.USAGE_CACHE_WRITE_TOKENS,
}
PROPOSED = {semconv.USAGE_COST, semconv.USAGE_COST_AMOUNT, semconv.USAGE_COST_CURRENCY, semconv.USAGE_COST_SOURCE}
"""Those that no convention has: docs/traces.md says so."""
SPECIFIED = {semconv.METRIC_OVERFLOW}
"""Of OpenTelemetry's own specification, which is no convention."""
CONSTANTS = """
import importlib, json, pkgutil
from opentelemetry.semconv import _incubating, attributes, metrics
from opentelemetry.semconv._incubating import attributes as newer, metrics as newer_metrics
found = set()
for package in (attributes, metrics, newer, newer_metrics):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        names = vars(importlib.import_module(module.name))
        found |= {value for name, value in names.items() if name.isupper() and isinstance(value, str)}
print(json.dumps(sorted(found)))
"""


def test_each_name_that_conventions_have_is_the_newest_packages(uv: str) -> None:  # noqa: F811
    words = [uv, "run", "--quiet", "--no-project", "--isolated", "--upgrade", "--prerelease", "allow"]
    words += ["--python", interpreter(uv, OWN), "--with", "opentelemetry-semantic-conventions"]
    packaged = set(json.loads(run([*words, "python", "-c", CONSTANTS])))
    ours = vars(semconv).values()
    sent = {each.name if isinstance(each, Metric) else each for each in ours if isinstance(each, (Metric, str))}
    named = {name for name in sent if name.startswith(THEIRS) and "{" not in name}
    assert semconv.OPERATION_DURATION.name in named
    assert named - packaged - NEWEST - PROPOSED - SPECIFIED == set()
