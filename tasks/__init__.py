"""Prefect tasks, one file a stage: handles in, a handle out. No science and no storage format is decided here."""
