"""Metrics as files, for machines without a network: OTLP as JSON lines, by OpenTelemetry's file exporter format.

``json_lines.py`` is what stands in a line, ``merging.py`` what stays of many, ``writer.py`` a process's own file.
https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/
"""
