"""Statistics of trained SAEs. Each statistic has one module, which computes its tables and its level of chance (null).

This package imports sae and storage, never Prefect. A study is analysed in parts, which `parts.py` lists.
`statistic.py` finds the statistics and computes those of a part, each after those whose tables it needs. `joined.py`
joins the parts.
"""
