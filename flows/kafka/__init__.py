"""Kafka, in and out: telemetry from topics, and scores, decisions and rejected input into others."""
