"""Model specs for the flows, which import tasks and storage only."""

from vlm.spec import FORMS, Spec, forms, relocated

__all__ = ["FORMS", "Spec", "forms", "relocated"]
