"""Prefect flows: the whole study, a sub-flow a stage, the study's configuration, and the command line."""
