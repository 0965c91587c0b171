"""How a process tree comes to be instrumented without code, and what that leaves in its environment.

``site`` is what ``openhands-otel run`` puts into PYTHONPATH: a ``sitecustomize`` that waits for OpenHands in each
Python below, and then calls ``start``. ``bootstrap`` and ``program`` do the same for a Python that does not look
there. ``footprint`` knows what was added to the environment.
"""
