"""Makes the dashboards: one module for each, one for what panels are made of, one for the queries."""
