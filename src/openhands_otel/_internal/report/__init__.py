"""What was spent, from every source there is, each dollar once; as a table, JSON, CSV, Markdown or FOCUS rows.

This room asks sources (the viewer, a database, OpenHands' files, Prometheus) and writes reports. It holds no data.
"""
