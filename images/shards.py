"""Images in WebDataset tar shards: a few large files, for storage that is slow with small ones.

data/make_shards.py writes the shards and their index, `shards.json`. The index is a COCO instances
json that also says where each image is in the tars:

    shards   file_name, bytes                       of each tar
    images   ..., shard (number), offset, member    of each image; its tar header is at the offset

Images are read in place. Nothing is extracted, linked or unpickled, so shards from an unknown
source can do no harm: at worst their images cannot be read.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import numpy as np

from labels.annotated import SHARD_INDEX, AnnotatedImages
from util.errors import UsageError
from util.reading import MOST_TEXT, open_file, read_json

WINDOW = 4  # shards shuffled together: more shuffle better but read from more files at a time
HINT = "copy the shards again, or rebuild them with data/make_shards.py"


class Shard(msgspec.Struct):
    """A tar."""

    file_name: str
    bytes: int


class Place(msgspec.Struct):
    """Where an image is."""

    file_name: str
    shard: Annotated[int, msgspec.Meta(ge=0)]
    offset: int
    member: str


class Index(msgspec.Struct):
    """shards.json, without what makes it COCO json."""

    shards: list[Shard]
    images: list[Place]


class ShardMember(NamedTuple):
    """An image in a shard. It has `open`, as a Path has."""

    shard: Path
    offset: int  # of its tar header, in bytes
    name: str

    def __str__(self) -> str:
        return f"{self.shard}/{self.name}"

    def open(self, mode: str = "rb") -> io.BytesIO:
        """The bytes of the image. Raises UsageError if they are not where the index says."""
        try:
            with open_file(self.shard) as file:
                file.seek(self.offset)
                block = file.read(tarfile.BLOCKSIZE)
                header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                left = os.fstat(file.fileno()).st_size - file.tell()
                if header.name == self.name and header.isreg() and 0 <= header.size <= left:
                    return io.BytesIO(file.read(header.size))
        except (tarfile.HeaderError, OverflowError, ValueError):
            pass
        except OSError as error:
            raise UsageError(f"cannot read the shard {self.shard} ({error.strerror})") from None
        raise UsageError(f"the shard {self.shard} lacks {self.name}; {HINT}")


def find_members(folder: Path, images: AnnotatedImages) -> list[ShardMember]:
    """The place of each image in the shards of a folder.

    Raises UsageError if an image is not in the index, or a shard is missing or has another size.
    """
    index = folder / SHARD_INDEX
    try:
        content = read_json(index, Index, MOST_TEXT, any_number=True)
        sizes = {Path(shard["file_name"]).name: shard["bytes"] for shard in content["shards"]}
        shards = [folder / name for name in sizes]
        members = {
            image["file_name"]: ShardMember(
                shards[image["shard"]], image["offset"], image["member"]
            )
            for image in content["images"]
        }
    except (OSError, ValueError, LookupError):
        raise UsageError(f"{index} is not an index of shards; {HINT}") from None
    for shard, size in zip(shards, sizes.values(), strict=True):
        if not shard.is_file():
            raise UsageError(f"the shard {shard} is missing; {HINT}")
        if shard.stat().st_size != size:
            raise UsageError(
                f"the shard {shard} has {shard.stat().st_size:,} bytes instead of {size:,}; {HINT}"
            )
    missing = [name for name in images.file_names if name not in members]
    if missing:
        raise UsageError(
            f"{len(missing):,} of the {len(images):,} images of {images.source} are not in the "
            f"shards of {folder}, for example {missing[0]}"
        )
    return [members[name] for name in images.file_names]


def group_by_shards(order: np.ndarray, shards: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices (N) in random order -> the same, reordered so that WINDOW shards are read at a time.

    shards: N shard numbers, one for each index. rng chooses which shards are read together.
    """
    window = rng.permutation(shards.max() + 1) // WINDOW
    return order[np.argsort(window[shards[order]], kind="stable")]
