"""The section [pairs] of a study file: one model for each source of pairs, and what it makes of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MAX_PIXELS = 89_478_485  # the default of `vlm.decode`, which a study file is read without


class Section(BaseModel):
    """A part of a study file: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Pairs(Section):
    """What every source of pairs has."""

    heldout: float = Field(0.2, ge=0, lt=1, description="share of images never trained on")
    shard_size: int = Field(
        8192, ge=1, le=2**20, description="images a shard; given out once, when they are first seen"
    )
    duplicates: Literal["keep", "drop"] = Field("keep", description="what is done with images of equal bytes")
    min_success: float = Field(
        0.5, ge=0, le=1, description="share of images that must come through, else the run stops"
    )
    max_pixels: int = Field(
        MAX_PIXELS,
        ge=1,
        le=2 * MAX_PIXELS,
        description="an image of more pixels fails; Pillow opens none above the limit",
    )
    retry_after: float = Field(
        600, ge=0, description="seconds until what failed for now is tried again by a later run; then twice as long"
    )
    licence: str | None = Field(
        None, max_length=200, description="of the images and captions, as the report and a published study say it"
    )


class NpmEmoji(Pairs):
    """Emoji images with their labels and tags, from two npm packages."""

    source: Literal["npm-emoji"]
    images: str = Field("@lobehub/fluent-emoji-3d@1.1.0", description="npm package of the images, with its version")
    metadata: str = Field("emojibase-data@17.0.0", description="npm package of labels and tags, with its version")
    limit: int | None = Field(None, ge=2, description="take the first so many items only")


class EmbeddingsFolder(Pairs):
    """The user's own vectors as pairs: keys and captions from the folder's metadata."""

    source: Literal["embeddings"]
    path: str = Field(description="the folder, relative to the study file")


class Files(Pairs):
    """What every source of the user's own images has."""

    id: str | None = Field(
        None, min_length=1, max_length=200, description="names the source in the store; default: where it lies"
    )
    limit: int | None = Field(None, ge=2, description="take the first so many items only")
    max_image_bytes: int = Field(32 << 20, ge=1, description="a larger image file fails")


class Downloads(Files):
    """What every source has that may lie at URLs."""

    concurrency: int = Field(64, ge=1, le=1024, description="downloads at once")
    timeout: float = Field(15, gt=0, description="seconds for one image")
    tries: int = Field(3, ge=1, le=10, description="of a download in one run, when its failure may go away")
    allow_private_addresses: bool = Field(False, description="also download from private networks and this machine")
    respect_noai: bool = Field(True, description="leave out what X-Robots-Tag marks as noai or noimageai")


class Coco(Downloads):
    """COCO's official layout: captions_<subset>.json with a folder or a zip of images."""

    source: Literal["coco"]
    path: str = Field("http://images.cocodataset.org", description="the folder that holds both, or the site")
    subset: str = Field("val2017", pattern=r"^[A-Za-z0-9._-]+$", description="train2017, val2017, ...")
    annotations: str | None = Field(None, description="captions_<subset>.json or a zip with it: a path or a URL")
    images: str | None = Field(None, description="folder or zip of the images: a path or a URL")
    annotations_digest: str = Field("", pattern=r"^$|^(sha256:[0-9a-fA-F]{64}|md5:[0-9a-fA-F]{32})$")
    images_digest: str = Field("", pattern=r"^$|^(sha256:[0-9a-fA-F]{64}|md5:[0-9a-fA-F]{32})$")


class Folder(Files):
    """Images in a folder, with a table of captions, or a .txt file beside each."""

    source: Literal["folder"]
    path: str = Field(description="the folder, relative to the study file")
    table: str | None = Field(None, description="CSV, TSV, JSONL or Parquet in it; default: the only one there")
    image_column: str | None = Field(None, description="default: file_name, image, image_path, path, ...")
    caption_column: str | None = Field(None, description="default: caption, captions, text, title")
    group_column: str | None = Field(None, description="images of one group stay on one side of the split")


class WebDataset(Downloads):
    """Tar shards in WebDataset's form."""

    source: Literal["webdataset"]
    shards: list[str] = Field(min_length=1, description="paths or URLs; {000..123} counts, * in paths")
    caption: str = Field("txt", pattern=r"^[A-Za-z0-9._-]+(:.+)?$", description='an extension, or "json:KEY"')

    @field_validator("shards", mode="before")
    @classmethod
    def _one(cls, shards: Any) -> Any:
        return [shards] if isinstance(shards, str) else shards


class Urls(Downloads):
    """A list of URLs and captions."""

    source: Literal["urls"]
    path: str = Field(description="CSV, TSV, JSONL or Parquet, or a folder of such; relative to the study file")
    url_column: str | None = Field(None, description="default: url, URL, image_url")
    caption_column: str | None = Field(None, description="default: caption, captions, text, title, TEXT")
    group_column: str | None = Field(None, description="images of one group stay on one side of the split")
    sha256_column: str | None = Field(None, description="the expected sum of the bytes; default: sha256, if there")


class HuggingFace(Files):
    """Parquet files of a dataset on the Hugging Face hub."""

    source: Literal["huggingface"]
    repo: str = Field(description="OWNER/NAME on the hub, or a folder (begin it with . or /)")
    revision: str = Field("main", description="branch, tag or commit")
    files: str = Field("**/*.parquet", description="which files, as a pattern below the dataset")
    image_column: str = "image"
    caption_column: str = "caption"
    group_column: str | None = Field(None, description="images of one group stay on one side of the split")


AnyPairs = Annotated[
    NpmEmoji | EmbeddingsFolder | Coco | Folder | WebDataset | Urls | HuggingFace, Field(discriminator="source")
]
SOURCES: dict[str, type[Pairs]] = {
    "npm-emoji": NpmEmoji,
    "embeddings": EmbeddingsFolder,
    "coco": Coco,
    "folder": Folder,
    "webdataset": WebDataset,
    "urls": Urls,
    "huggingface": HuggingFace,
}
#: Keys that may hold a path, by source. npm-emoji's `images` is a package.
PATHS = {
    "embeddings": ("path",),
    "coco": ("path", "annotations", "images"),
    "folder": ("path",),
    "webdataset": ("shards",),
    "urls": ("path",),
    "huggingface": ("repo",),
}


#: Keys that change which images come through, and so what a shard holds.
RULES = ("duplicates", "max_pixels", "max_image_bytes", "allow_private_addresses", "respect_noai")
#: Keys that change how it goes, and no result.
HOW = ("concurrency", "timeout", "tries", "min_success", "retry_after")


def source_of(pairs: Pairs) -> dict[str, Any]:
    """The source, as its tasks take it."""
    return pairs.model_dump(exclude=set(Pairs.model_fields))


def rules_of(pairs: Pairs) -> dict[str, Any]:
    """What decides which images of a source come through: part of the recipe of its shards."""
    return {key: getattr(pairs, key) for key in RULES if key in type(pairs).model_fields}


def located(section: dict[str, Any], change: Any) -> dict[str, Any]:
    """A section as it stands in the file, with `change` made of every path of this machine. URLs and names of the hub
    stay as they are; what is no string is left for the validation to refuse."""
    source = section.get("source")
    changed = dict(section)
    for key in PATHS.get(source, ()) if isinstance(source, str) else ():
        value = section.get(key)
        if isinstance(value, list):
            changed[key] = [change(one) if _is_path(one, key) else one for one in value]
        elif _is_path(value, key):
            changed[key] = change(value)
    return changed


def _is_path(value: Any, key: str) -> bool:
    if not isinstance(value, str) or "://" in value:
        return False
    return key != "repo" or value.startswith((".", "/"))
