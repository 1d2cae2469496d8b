"""Random programs in plain NumPy, and what must hold for every one of them.

``python -m tests.random_programs --from 0 --to 10000`` runs those seeds, ``--shard 2/8`` a part of
them. A seed that fails is made smaller and printed as a program that can be pasted.
"""
