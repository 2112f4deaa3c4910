"""Equal image files in different splits."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from pathlib import Path

from images.shards import ShardMember
from util.reading import open_file

SAMPLE = 1024  # bytes compared before whole files are
BLOCK = 1 << 20  # bytes read at a time


def duplicates(*splits: list[Path] | list[ShardMember]) -> list[tuple[Path, Path]]:
    """Pairs of files with equal content in different splits, sorted. Shards are not compared.

    Compares sizes first, then a few bytes where sizes agree, then whole files where those agree.
    """
    groups: dict[object, list[tuple[int, Path]]] = defaultdict(list)
    for number, split in enumerate(splits):
        for path in set(split):
            # a missing file is reported when it is loaded
            if not isinstance(path, ShardMember) and path.is_file():
                groups[os.stat(path).st_size].append((number, path))
    for look in (_middle, _content_hash):
        finer = defaultdict(list)
        for key, members in groups.items():
            if len({number for number, _ in members}) > 1:
                for number, path in members:
                    finer[key, look(path)].append((number, path))
        groups = finer
    pairs = []
    for members in groups.values():
        first = min(members)
        pairs += [(first[1], path) for number, path in sorted(members) if number != first[0]]
    return sorted(pairs)


def _middle(path: Path) -> bytes:
    """Bytes from the middle of a file: images of one camera begin with equal bytes."""
    with open_file(path) as file:
        file.seek(os.stat(path).st_size // 2)
        return file.read(SAMPLE)


def _content_hash(path: Path) -> bytes:
    digest = hashlib.sha256()  # hashlib.file_digest would do it, but needs Python 3.11
    with open_file(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.digest()
