"""``openhands-otel demo``: a real OpenHands agent against a scripted LLM provider that keeps a bill.

The provider is what tests and benchmarks hold the numbers against, too. It must not know how anything is counted.
"""
