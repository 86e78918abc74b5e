"""The jobs of each stage, listed from the study and the datasets so far. `run` and `status` use the same lists.

A job is a cached task with its arguments. A stage consists of one or more steps. The jobs of one step do not depend on
each other. Each stage has a module, and its steps are the decorated functions there, in order. Nothing here runs a
task.
"""

from importlib import import_module

from flows.stages import STAGES

for _stage in STAGES:
    import_module(f"{__name__}.{_stage}")
