"""Spans as OTLP brings them, and what people see of them: the calls of a conversation, and its timeline.

It knows what a span says. It must not know how spans are kept, nor what the metrics of a conversation are.
"""
