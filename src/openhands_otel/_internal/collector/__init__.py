"""The embedded collector: receives OTLP, knows what is true now, keeps what was, and serves it.

It knows the wire (OTLP in, JSON and exposition out) and must not know the agent's process: a remote agent's points and
a local one's come through the same doors.
"""
