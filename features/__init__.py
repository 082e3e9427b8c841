"""What we measure, and what it says: telemetry, windows, working cycles."""
