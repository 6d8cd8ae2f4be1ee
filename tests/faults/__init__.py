"""Faults done to the product on purpose: bad inputs, kills, flipped and truncated files. `python -m tests.faults --help`."""
