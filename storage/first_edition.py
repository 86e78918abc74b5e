"""The keys that a study file had in its first edition. Records and recipes always contain these keys.

A key that is missing from this list was added later. Records and recipes leave it out while it has its default, so that
a new key changes the address of no existing dataset. So no key is ever added to this list. The keys of SAEs are in
`sae.settings.FIRST_EDITION`.
"""

#: {class of a section: the keys that the class defines, without inherited keys}
FIRST_EDITION = {
    "Study": "name pairs models saes diets frontier analyze runtime",
    "Model": "name spec dtype",
    "Diets": "image_share halves",
    "ImportedSAE": "name checkpoint architecture k seeds retrain",
    "Frontier": "methods k width",
    "Analyze": "split min_pairs",
    "RuntimeSection": "device embed_batch_size runner ray_address num_cpus num_gpus num_gpus_sae",
    "PairsSection": "heldout shard_size duplicates min_success max_pixels retry_after licence",
    "FilesSection": "id limit max_image_bytes",
    "DownloadsSection": "concurrency timeout tries allow_private_addresses respect_noai",
    "CocoSection": "source path subset annotations images annotations_digest images_digest",
    "EmbeddingsSection": "source path",
    "FolderSection": "source path table image_column caption_column group_column",
    "HuggingFaceSection": "source repo revision files image_column caption_column group_column",
    "NpmEmojiSection": "source images metadata limit",
    "UrlsSection": "source path url_column caption_column group_column sha256_column",
    "WebDatasetSection": "source shards caption",
}


def first_edition(section: type) -> frozenset[str]:
    """Return the keys that a section had in the first edition, including inherited keys."""
    return frozenset(key for cls in section.__mro__ for key in FIRST_EDITION.get(cls.__name__, "").split())
