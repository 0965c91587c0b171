"""Paths of the viewer's API, in one place. Imports nothing: ``status`` asks for one of them within milliseconds."""

from __future__ import annotations

from typing import Final

API: Final = "/api/v1/"
STATE: Final = "/api/v1/state"
CONVERSATIONS: Final = "/api/v1/conversations"
CONVERSATION: Final = "/api/v1/conversations/{conversation_id}"
CALLS: Final = "/api/v1/conversations/{conversation_id}/calls"
TIMELINE: Final = "/api/v1/conversations/{conversation_id}/timeline"
RUNS: Final = "/api/v1/runs"
SPAN: Final = "/api/v1/span"
TOTALS: Final = "/api/v1/totals"
GLANCE: Final = "/api/v1/glance"
HISTORY: Final = "/api/v1/history"
SPEND: Final = "/api/v1/spend"
LATENCY: Final = "/api/v1/latency"
BUDGETS: Final = "/api/v1/budgets"
PRESENCE: Final = "/api/v1/presence"
IMPORT: Final = "/api/v1/import"
EVENTS: Final = "/api/v1/events"
LOGIN: Final = "/api/v1/login"
OPENAPI: Final = "/api/v1/openapi.json"
METRICS: Final = "/metrics"
HEALTH: Final = "/healthz"
