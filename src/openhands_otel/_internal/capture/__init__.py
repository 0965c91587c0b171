"""Makes events out of what OpenHands does: which methods to patch, whose a call is, what each release has.

This is the one room that knows OpenHands, and it never imports OpenHands, only waits for it. It must not know what
becomes of an event: no ledger, no OpenTelemetry instruments, no spans.
"""
