"""What the collector answers with: the JSON API, the stream of changes, the exposition for Prometheus.

It reads the store and changes nothing in it.
"""
