"""Statistics of trained SAEs. Each statistic has one module, which computes its tables and its chance level (null).

This package imports sae and storage, never Prefect. A study is analysed in parts, which `parts.py` lists.
`statistic.py` finds the statistics and computes the statistics of a part; a statistic runs after the statistics whose
tables it needs. `joined.py` joins the tables of the parts.
"""
