"""The benchmark: our store beside its peers and the physical limits, in one run.

``python -m bench --size 256MiB`` prints the tables; ``--json FILE`` keeps every
figure with the machine, the versions, the seed and the command that made it.

``workloads`` builds the seeded states, ``systems`` says how each contestant
saves and loads, ``child`` measures one of them once in a fresh process,
``harness`` runs the rounds, ``report`` turns them into tables.
"""
