"""Statistics of trained SAEs, one file per statistic: its kernel, its rows, its null and the tables it makes.

Imports sae and storage, and never Prefect. `statistic.py` finds the statistics, and runs them in the order of their
needs.
"""
