"""The explorer's data files: a study as JSON and thumbnails, made from its catalog, decoders and map layouts."""

from __future__ import annotations

from report.explorer.item_maps import ItemMap
from report.explorer.layout import concept_map
from report.explorer.places import place_blocks, place_codes
from report.explorer.release import unpack
from report.explorer.site import write_explorer

__all__ = ["ItemMap", "concept_map", "place_blocks", "place_codes", "unpack", "write_explorer"]
