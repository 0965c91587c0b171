"""Makes OTLP points of the ledger's totals: counters of the fleet, histograms, one set of series per conversation.

It knows OpenTelemetry's metrics. It must not know OpenHands; how a request is sent is ``export``'s.
"""
