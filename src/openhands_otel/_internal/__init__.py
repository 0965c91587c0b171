"""Everything that is not public: each package in it is a room of the house, and each room says what it knows.

A room imports only from rooms below it; the order stands in ``pyproject.toml`` under ``[tool.importlinter]``.
"""
