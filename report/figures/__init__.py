"""The figures, a subject a module: rows of the catalog in, what to draw out. They count nothing and ask nothing."""

from __future__ import annotations
