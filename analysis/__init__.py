"""Statistics of trained SAEs. Each statistic has one module, which computes its tables and its level of chance (null).

This package imports sae and storage, never Prefect. `statistic.py` finds the statistics and runs each one after those
whose tables it needs.
"""
