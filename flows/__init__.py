"""Prefect flows: the whole study, one sub-flow per stage, the configuration of a study, and the command line."""
