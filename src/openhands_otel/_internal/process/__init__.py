"""Puts the parts together in the agent's process, and takes them apart: at its end, on a signal, in a forked child.

It knows which parts there are and when they run. It must not know the details of any of them.
"""
