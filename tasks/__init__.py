"""Prefect tasks, one file per stage. A task takes handles and returns a handle; it decides no science and no format."""
