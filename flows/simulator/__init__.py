"""A simulated fleet of lifts and boilers: seeded physics with wear, sudden failures, misuse, sensor faults and silence."""
