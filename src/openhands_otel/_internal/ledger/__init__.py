"""The truth of a process: a queue of events, and the exact totals that the ledger makes of them.

It knows the events. It must not know OpenHands, which makes them, nor OpenTelemetry, which carries the totals away.
"""
