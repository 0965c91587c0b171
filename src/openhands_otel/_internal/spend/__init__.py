"""Spend that has a place in time and a name: amounts, rows of them, and how rows are grouped.

This room knows neither where rows come from (the archive, OpenHands' own files, Prometheus) nor how they are shown.
"""
