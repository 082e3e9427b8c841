"""What is normal, what wears, what is left: detectors, health, prognosis."""
