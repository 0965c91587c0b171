"""Hands events to whoever asked for them: the pipeline's queue, the tracer, the user's callbacks.

The bus knows the events and who listens. It must not know where events come from, or what becomes of them.
"""
