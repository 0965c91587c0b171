"""Replaces methods of a library that may not be imported yet, and puts the identical objects back.

It must not know which library: ``capture``, ``launch`` and ``remote`` say what to patch.
"""
