"""The fleet's instruments on meter providers of applications, made once for each provider.

A provider gives no instrument back: asked for one of a known name it answers with the first one and forgets the new
callbacks. So the instruments stay, and a pipeline that comes later (after ``uninstrument``, in a forked child) feeds
the ones that are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakKeyDictionary

from opentelemetry.metrics import MeterProvider

from openhands_otel import semconv
from openhands_otel._internal.metrics.instruments import FleetInstruments
from openhands_otel._internal.version import __version__
from openhands_otel.semconv import BudgetScope

_instruments: WeakKeyDictionary[MeterProvider, FleetInstruments] = WeakKeyDictionary()


def guest_instruments(
    provider: MeterProvider, series_limit: int, budgets: Mapping[BudgetScope, float]
) -> FleetInstruments:
    """The instruments on ``provider``."""
    found = _instruments.get(provider)
    if found is None:
        meter = provider.get_meter(semconv.SCOPE_FLEET, __version__)
        found = _instruments[provider] = FleetInstruments(meter, series_limit, budgets)
    return found
