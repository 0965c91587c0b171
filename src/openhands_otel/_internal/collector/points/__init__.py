"""Decodes OTLP points, checks them against their ranges, and decides which of two values of a series is newer.

This room knows single series. It must not know conversations, processes or totals: those are ``state``.
"""
