"""Looks for the broken link between an agent and who shows what it spends: a module for each thing that can break.

Knows how telemetry is sent (``export/``) and what stands in an environment; nothing of what is measured. Each check
gives findings, a line each: what works, or what does not and what to do. Content, tokens and headers are in none.
"""
