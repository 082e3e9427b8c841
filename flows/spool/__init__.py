"""The spool: what brokers delivered, on disk, read by position."""
