"""How a process comes to be instrumented without code, and what that leaves in its environment.

``footprint`` knows what was added, ``workers`` carries instrumentation into multiprocessing's children, ``bootstrap``
and ``site/sitecustomize`` are what ``openhands-otel run`` puts in front of a command.
"""
