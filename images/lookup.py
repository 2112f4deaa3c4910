"""Photos -> their entries in annotations: the other direction than find.py."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from images.find import common_end, is_elsewhere, names_file, same_content
from labels.annotated import AnnotatedImages
from util.errors import UsageError
from util.log import log, some
from util.names import key, parts_of, readings, stem


def find_entries(root: Path, photos: Sequence[str], images: AnnotatedImages) -> dict[str, int]:
    """For each photo the row of its entry in the annotations. Photos without one are left out.

    photos: names relative to `root`, with /. An entry fits if its name ends as the photo's path
    does; the one that agrees with the longest part of the path is taken. What upper and lower case,
    suffixes and addresses mean is as in `find_images`. Says on stderr how many photos have another
    path there. Raises UsageError if several entries fit a photo, or several photos an entry.
    """
    full = {photo: parts_of(os.path.abspath(root / photo)) for photo in photos}
    entries = _entries_by_name(photos, images.file_names)
    parents = {name.replace("\\", "/").rpartition("/")[0] for name in images.file_names}
    named_folders = {key(part) for parent in parents for part in parts_of(parent)}
    folders = {key(part) for photo in photos for part in parts_of(photo)[:-1]}
    found, guesses = {}, []
    for photo, path in full.items():
        rows = entries[key(path[-1])] | entries[key(stem(path[-1]))]
        ranked = defaultdict(list)
        for row in sorted(rows):
            name = images.file_names[row]
            if rank := _rank(name, path, folders, named_folders):
                ranked[rank].append(row)
        if not ranked:
            continue
        best = ranked[max(ranked)]
        if len(best) > 1:
            names = [repr(images.file_names[row]) for row in best]
            raise UsageError(
                f"{root / photo} could be {some(names, 3)} of {images.source}: it must have the "
                "folders and the name of its entry"
            )
        found[photo] = best[0]
        said = parts_of(images.file_names[best[0]])
        if max(ranked)[1] or said[-1] != path[-1] or _is_other_file(said, path):
            guesses.append(photo)
    found = _each_once(found, images)
    if guesses := [photo for photo in guesses if photo in found]:
        example = f"{root / guesses[0]} is taken for {images.file_names[found[guesses[0]]]!r}"
        log(
            f"note: {len(guesses):,} of {len(found):,} photos have another path in "
            f"{images.source}: {example}"
        )
    return found


def _entries_by_name(photos: Sequence[str], names: Sequence[str]) -> dict[str, set[int]]:
    """Key of a file's name, with or without suffix -> the rows that have it."""
    last = [parts_of(photo)[-1] for photo in photos]
    wanted = {key(name) for name in last} | {key(stem(name)) for name in last}
    found = defaultdict(set)
    for row, name in enumerate(names):
        for parts in readings(name):
            if (end := key(parts[-1])) in wanted:
                found[end].add(row)
    return found


def _rank(
    name: str, path: tuple[str, ...], folders: set[str], named_folders: set[str]
) -> tuple[int, int, int] | None:
    """How well a name fits a path, to compare; None if it does not mean this file.

    How many folders agree; minus those in the name that do not; how many parts agree exactly.
    """
    if not names_file(name, Path(path[-1])):
        return None
    ranks = []
    for parts in readings(name):
        said, own = [key(p) for p in parts[:-1]], [key(p) for p in path[:-1]]
        agree = common_end(said, own)
        dropped, holders = said[: len(said) - agree], own[: len(own) - agree]
        if is_elsewhere(dropped, holders, folders, named_folders):
            continue
        if dropped and _is_other_file(parts, path):
            continue
        exact = sum(a == b for a, b in zip(reversed(parts), reversed(path), strict=False))
        ranks.append((agree, -len(dropped), exact))
    return max(ranks, default=None)


def _is_other_file(parts: tuple[str, ...], path: tuple[str, ...]) -> bool:
    """Whether a name means another file, in one of the folders above the photo, not a copy of it"""
    named = (Path("/", *path[:depth], *parts) for depth in range(len(path)))
    photo = Path("/", *path)
    return any(os.path.exists(other) and not same_content(photo, other) for other in named)


def _each_once(found: dict[str, int], images: AnnotatedImages) -> dict[str, int]:
    """Of photos with the same entry only the one that the entry names in full."""
    photos = defaultdict(list)
    for photo, row in found.items():
        photos[row].append(photo)
    for row, same in photos.items():
        if len(same) > 1:
            name = images.file_names[row]
            exact = [photo for photo in same if parts_of(photo) == parts_of(name)]
            if not exact:
                raise UsageError(
                    f"{some(same, 3)} would all be {name!r} of {images.source}: its names need "
                    "the folders of the photos"
                )
            for photo in {*same} - {*exact}:
                del found[photo]
    return found
