"""Statistics of trained SAEs, one file per statistic: its kernel, its rows, its null and the tables it makes.

The room imports sae and storage, never Prefect. `statistic.py` finds the statistics and runs each one after those whose
tables it needs.
"""
