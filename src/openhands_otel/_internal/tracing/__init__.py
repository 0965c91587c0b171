"""Makes spans of the same events: one for each run, LLM call and tool call, with content only where it is asked for.

It knows OpenTelemetry's traces and what must be redacted. It must not know OpenHands.
"""
