"""Model specs, re-exported for the flows, which may import only tasks and storage."""

from vlm.spec import FORMS, Spec, forms, relocated

__all__ = ["FORMS", "Spec", "forms", "relocated"]
