"""Prefect tasks, one module per stage. A task takes handles of datasets and returns the handle of a new dataset.

Computations and file formats are not defined here, but in the packages that the tasks call.
"""
