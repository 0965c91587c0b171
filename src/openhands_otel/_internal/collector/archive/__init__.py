"""What outlives the collector's process: the history in SQLite, and the journal of requests not yet saved in it.

The archive knows files and records. It must not know how a record is made or shown.
"""
