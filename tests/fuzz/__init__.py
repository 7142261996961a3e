"""Mutated inputs of every format, seeded, through the corpus half: `python -m tests.fuzz --inputs 10000 --seed 1`."""
