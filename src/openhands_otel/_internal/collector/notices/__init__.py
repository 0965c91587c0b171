"""Tells people who are elsewhere what needs them: budgets, runs that wait or went wrong, money that burns.

``conditions`` says what holds now, each with a key that stays the same as long as it is the same event; the archive
(``told.py``) keeps which keys were told to whom, so that each is told once, over restarts too; ``targets`` sends, by
Apprise; ``rounds`` puts them together.
"""
