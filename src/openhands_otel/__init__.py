"""OpenTelemetry for OpenHands."""
