"""The figures, one module per subject. Each function turns rows of the catalog into a drawing and runs no query."""

from __future__ import annotations
