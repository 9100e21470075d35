"""Energy of a run: where power is read, how it is integrated, and when a difference between runs means anything.

Watts are not joules: a run at lower power that takes longer may need more energy. Samples are not runs: those within
one run depend on each other, so the unit of every test here is the run.
"""
