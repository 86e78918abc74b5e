"""Keys of the study file in the first edition. They are written and hashed always, also at their default.

A key that is not listed was added later. It is left out of records and recipes while it is at its default, so that a
new key moves the address of no dataset. Nothing is ever added here. Keys of SAEs: `sae.settings.FIRST_EDITION`.
"""

#: {class of a section: its own keys, without those that it inherits}
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
    """The keys of a section, own and inherited, that the first edition had."""
    return frozenset(key for cls in section.__mro__ for key in FIRST_EDITION.get(cls.__name__, "").split())
