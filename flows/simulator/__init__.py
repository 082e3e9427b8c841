"""A simulated fleet of lifts and boilers: seeded physics that wears, breaks, is misused and falls silent."""
