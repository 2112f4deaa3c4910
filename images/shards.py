"""Images in WebDataset tar shards: few large files that slow storage reads shard after shard.

data/make_shards.py writes them with an index, `shards.json`, that is an ordinary COCO instances
json which also says where in the tars each image lies:

    shards   file_name, bytes                       of each tar
    images   ..., shard (number), offset, member    of each image: where its tar header starts

Images are read at their place and nothing is ever extracted, linked to or unpickled: a tar, or an
index, from a stranger can at worst hold pictures that cannot be read.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from labels.annotated import SHARD_INDEX, AnnotatedImages
from util.errors import UsageError

WINDOW = 4  # shards whose images are mixed: more mix better and spread the reading over more files
HINT = "copy the shards again or make them anew with data/make_shards.py"


class ShardMember(NamedTuple):
    """An image in a shard; opens as a Path does."""

    shard: Path
    offset: int  # of its header
    name: str

    def __str__(self) -> str:
        return f"{self.shard}/{self.name}"

    def open(self, mode: str = "rb") -> io.BytesIO:
        """The image's bytes. Raises UsageError if they are not where the index says."""
        try:
            with open(self.shard, "rb", buffering=0) as file:
                file.seek(self.offset)
                block = file.read(tarfile.BLOCKSIZE)
                header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                left = os.fstat(file.fileno()).st_size - file.tell()
                if header.name == self.name and header.isreg() and 0 <= header.size <= left:
                    return io.BytesIO(file.read(header.size))
        except (tarfile.HeaderError, OverflowError):
            pass
        except OSError as error:
            raise UsageError(f"cannot read the shard {self.shard} ({error.strerror})") from None
        raise UsageError(f"the shard {self.shard} lacks {self.name}; {HINT}")


def find_members(folder: Path, images: AnnotatedImages) -> list[ShardMember]:
    """Where each image lies in the shards of a folder.

    Raises UsageError if an image is not there, or a shard is missing or not of its length.
    """
    index = folder / SHARD_INDEX
    try:
        content = json.loads(index.read_bytes())
        sizes = {Path(shard["file_name"]).name: shard["bytes"] for shard in content["shards"]}
        shards = [folder / name for name in sizes]
        members = {
            image["file_name"]: ShardMember(
                shards[image["shard"]], int(image["offset"]), str(image["member"])
            )
            for image in content["images"]
        }
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
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
            f"shards of {folder}, {missing[0]} for one"
        )
    return [members[name] for name in images.file_names]


def shard_after_shard(order: np.ndarray, shards: np.ndarray, rng: np.random.Generator):
    """Indices (N) in random order -> an order that is done with WINDOW shards before the next.

    shards: for each index the number of its shard. Which ones share a window is drawn from rng.
    """
    window = rng.permutation(shards.max() + 1) // WINDOW
    return order[np.argsort(window[shards[order]], kind="stable")]
