"""File names in annotations -> paths in the image folder."""

from __future__ import annotations

import filecmp
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from images.shards import ShardMember, find_members
from labels.annotated import SHARD_INDEX, AnnotatedImages
from labels.text import split_of
from util.errors import UsageError
from util.files import OTHER_PICTURES, is_folder, is_picture, suffix_of, walk
from util.log import counted, log, some
from util.names import key, parts_of, readings, stem

HINT = "; data_loader.py lists all that are missing, --skip_bad_images leaves them out"
FEW = 8  # files of one name that are all compared with a name in annotations
MAY_BE_GONE = ("NUS-WIDE",)  # sets published as URLs, whose images disappear over time


def find_images(
    image_path: Path, images: AnnotatedImages, allow_missing: bool = False
) -> list[Path] | list[ShardMember]:
    """The path of each image: in the folder, at any depth, or in its shards.

    A name that is no path in the folder is found by its end: the file that agrees with the longest
    part of it. Upper and lower case and Unicode forms do not matter, a suffix may be missing, and
    see `util.names.readings`. Nothing outside the folder is found. Raises UsageError if the folder
    is missing, if an image is, or if several files fit a name; with `allow_missing` a missing image
    gets the path where it should be.
    """
    if (image_path / SHARD_INDEX).is_file():
        return find_members(image_path, images)
    files, paths = _locate(image_path, images)
    if guesses := files.guesses(paths):
        log(
            f"note: {len(guesses):,} of the {len(images):,} names in {images.source} "
            f"{'differs' if len(guesses) == 1 else 'differ'} from the files' paths; found by the "
            f"last parts: {guesses[0]}"
        )
    if allow_missing:
        named = zip(images.file_names, paths, strict=True)
        return [path or image_path.joinpath(*parts_of(name)) for name, path in named]
    if sentence := _say_missing(files, paths):
        raise UsageError(f"{sentence}{HINT}" if any(paths) else sentence)
    return paths


def say_missing(image_path: Path, images: AnnotatedImages) -> str:
    """How many images are missing from the folder, and what is there; empty if none is.

    Raises UsageError, as `find_images`.
    """
    return _say_missing(*_locate(image_path, images))


def _say_missing(files: _Files, paths: list[Path | None]) -> str:
    missing = [name for name, path in zip(files.names, paths, strict=True) if path is None]
    if not missing:
        return ""
    what = f"{len(missing):,} of the {len(paths):,} images of {files.source}"
    verb = "is" if len(missing) == 1 else "are"
    there, example = files.what_is_there(), files.about_missing(missing[0])
    found = f"{what} {verb} not under {files.root}{there}, for example {example}"
    return found if any(paths) else f"{found}; name the folder of the images with --image_path"


def without_missing(image_path: Path, images: AnnotatedImages) -> AnnotatedImages:
    """Without missing images, for sets whose images disappear (MAY_BE_GONE); logs how many.

    Other sets are returned unchanged: there a missing image is an error.
    """
    if images.kind not in MAY_BE_GONE or (image_path / SHARD_INDEX).is_file():
        return images
    paths = _locate(image_path, images)[1]
    keep = [i for i, path in enumerate(paths) if path is not None]
    if gone := len(images) - len(keep):
        log(
            f"{images.source}: {gone:,} of {len(images):,} images are not under {image_path} "
            "(deleted from Flickr?) and are skipped"
        )
    return images.select(keep) if keep else images


def names_file(name: str, path: Path) -> bool:
    """Whether a name in annotations may mean this file, whatever folders it gives."""
    last = {key(parts[-1]) for parts in readings(name)}
    return key(path.name) in last or (not is_picture(name) and key(stem(path.name)) in last)


def _locate(image_path: Path, images: AnnotatedImages) -> tuple[_Files, list[Path | None]]:
    """The path of each image, None for a missing one. Raises UsageError."""
    if not image_path.is_dir():
        raise UsageError(f"the image folder {image_path} does not exist")
    files = _Files(image_path, images)
    paths = [files.find(name) for name in images.file_names]
    if files.inexact:  # two names may have led to the same file
        names = {}
        for name, path in zip(images.file_names, paths, strict=True):
            other = names.setdefault(path, name) if path else name
            if other != name and {name, other} & files.inexact:
                raise UsageError(
                    f"{images.source}: {other!r} and {name!r} would both be {path}; "
                    "write the exact file names"
                )
    return files, paths


class _Files:
    """The files of an image folder. It is listed as a whole only if some name is not exact."""

    def __init__(self, root: Path, images: AnnotatedImages) -> None:
        self.root, self.source, self.names = root, images.source, images.file_names
        self.roots = [f"{r.as_posix().rstrip('/')}/" for r in (root.absolute(), root.resolve())]
        self.above = [key(part) for part in Path(os.path.abspath(root)).parts]
        self.listed: dict[str, set[str]] = {}
        self.compared: dict[tuple[tuple[str, ...], str], tuple[int, int, bool]] = {}
        self.ends: dict[int, dict[tuple[str, ...], dict[str, list[str]]]] = {}  # see `_by_end`
        self.inexact: set[str] = set()  # names that differ from their file's
        self.refused: dict[str, str] = {}  # a name -> the file of another folder that it is not

    def find(self, name: str) -> Path | None:
        """The path of the file with this name, or None. Raises UsageError if several fit."""
        for number, parts in enumerate(readings(self._inside(name))):
            if parts[-1] in self._list("/".join(parts[:-1])):
                if number:
                    self.inexact.add(name)
                return self.root.joinpath(*parts)
        self.inexact.add(name)
        for index, ends in ((self._by_name, _name_keys), (self._by_stem, _stem_keys)):
            for parts in readings(name):
                for end in ends(parts[-1]):
                    if (files := index.get(end)) and (path := self._choose(name, parts, files)):
                        return self.root / path
        self.inexact.discard(name)
        return None

    def guesses(self, paths: list[Path | None]) -> list[str]:
        """For each name that differs in more than missing folders: what it was taken for."""
        return [
            f"{name!r} is {path.relative_to(self.root).as_posix()}"
            for name, path in zip(self.names, paths, strict=True)
            if name in self.inexact and path and path.name != name
        ]

    def what_is_there(self) -> str:
        pictures = [f for names in self._by_name.values() for f in names if is_picture(f)]
        return f" ({counted(len(pictures), 'picture')}: {some(pictures, 2)})" if pictures else ""

    def about_missing(self, name: str) -> str:
        """The last part of a missing name, and files that might be meant."""
        last = next(readings(name), (name,))[-1]
        if other := self.refused.get(name):
            return f"{name} ({other} has the same name, but is in another folder)"
        if other := self._by_stem.get(key(stem(last))):
            return f"{last} (there is {some(sorted(other), 2)})"
        start = key(last)
        like = [f for k, fs in self._by_name.items() for f in fs if k.startswith(start)]
        if len(like) > 1:
            return (
                f"{last}: {len(like)} files begin so ({some(sorted(like), 2)}), but one is needed"
            )
        return last

    def _inside(self, name: str) -> str:
        """An absolute name in the folder, relative to it; other names as they are."""
        return next((name[len(r) :] for r in self.roots if name.startswith(r)), name)

    def _list(self, folder: str) -> set[str]:
        """The names of the files in a folder; none if it does not exist.

        A folder called a.jpg is taken for a file: what reads it says what it is.
        """
        if folder not in self.listed:
            try:
                with os.scandir(self.root / folder) as entries:
                    self.listed[folder] = {
                        e.name for e in entries if is_picture(e.name) or not is_folder(e)
                    }
            except (OSError, ValueError):  # ValueError: \0 in the name
                self.listed[folder] = set()
        return self.listed[folder]

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """Key of a file's name -> the files, relative to the folder."""
        found = defaultdict(list)
        for folder, entries in walk(self.root):
            for entry in entries:
                found[key(entry.name)].append(f"{folder}/{entry.name}" if folder else entry.name)
        return dict(found)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        """The same for the name without suffix, of pictures only."""
        found = defaultdict(list)
        for name, files in self._by_name.items():
            if is_picture(name) or suffix_of(name) in OTHER_PICTURES:
                found[stem(name)] += files
        return dict(found)

    @cached_property
    def _folders(self) -> set[str]:
        """The keys of all folders that contain files."""
        files = (file for files in self._by_name.values() for file in files)
        parents = {file.rpartition("/")[0] for file in files}
        return {key(part) for parent in parents for part in parent.split("/")}

    @cached_property
    def _named_folders(self) -> set[str]:
        """The keys of all folders in the names."""
        parents = {parts_of(self._inside(name))[:-1] for name in self.names}
        return {key(part) for parent in parents for part in parent}

    def _choose(self, name: str, parts: tuple[str, ...], files: list[str]) -> str | None:
        """The file whose path agrees with the longest end of `parts`; all agree in the last."""
        if len(files) == 1 and len(parts) == 1:
            return files[0]
        for some_files in self._nearest_first(parts, files):
            ranked = []
            for file in some_files:
                folder, _, last = file.rpartition("/")
                pair = parts[:-1], folder
                if pair not in self.compared:
                    self.compared[pair] = self._compare(*pair)
                agree, exact, is_elsewhere = self.compared[pair]
                if not is_elsewhere:
                    ranked.append((agree, exact + (last == parts[-1]), file))
            if ranked:
                break
        else:
            self.refused[name] = files[-1]
            return None
        best = max(ranked)[:2]
        best = sorted(file for agree, exact, file in ranked if (agree, exact) == best)
        first = self.root / best[0]
        if not all(same_content(first, self.root / other) for other in best[1:]):
            raise UsageError(
                f"{self.source}: {name!r} could be {some(best, 3)} in {self.root}; name the folder "
                "of the pictures with --image_path, or write the folders in the file names"
            )
        return best[0]

    def _nearest_first(self, parts: tuple[str, ...], files: list[str]) -> Iterator[list[str]]:
        """The files that agree with `parts` in most folders, then those with one less, ….

        Left out are most files of another folder (`is_elsewhere`): where each of thousands of
        folders has an img.jpg, a look at all of them for each name would take hours.
        """
        if len(files) <= FEW:
            yield files
            return
        if (by_end := self.ends.get(id(files))) is None:
            by_end = self.ends[id(files)] = self._by_end(files)
        wanted = tuple(key(part) for part in parts[:-1])
        for start in range(len(wanted) + 1):
            by_holder, dropped = by_end.get(wanted[start:], {}), wanted[:start]
            holders = {*dropped[:-1], ""} if dropped else by_holder
            yield [file for holder in holders for file in by_holder.get(holder, ())]

    def _by_end(self, files: list[str]) -> dict[tuple[str, ...], dict[str, list[str]]]:
        """The last folders of a path, as keys -> the folder before them, if named -> the files."""
        found = defaultdict(lambda: defaultdict(list))
        for file in files:
            folders = (*self.above, *map(key, file.split("/")[:-1]))
            for start in range(len(folders), -1, -1):
                holder = folders[start - 1] if start else ""
                is_named = holder in self._named_folders
                in_root = start >= len(self.above)
                found[folders[start:]][holder if is_named and in_root else ""].append(file)
                if start <= len(self.above) and not is_named:
                    break
        return found

    def _compare(self, said: tuple[str, ...], folder: str) -> tuple[int, int, bool]:
        """How many folders in a name agree, how many exactly, and whether the file is elsewhere."""
        own = folder.split("/") if folder else []
        wanted = [key(part) for part in said]
        full = [*self.above, *map(key, own)]
        agree = common_end(wanted, full)
        exact = sum(a == b for a, b in zip(reversed(said), reversed(own), strict=False))
        dropped, holders = wanted[: len(wanted) - agree], full[: len(full) - agree]
        is_other = is_elsewhere(dropped, holders, self._folders, self._named_folders)
        return agree, exact, agree <= len(own) and is_other


def common_end(a: Sequence[str], b: Sequence[str]) -> int:
    """How many parts at their ends are equal."""
    agree = 0
    while agree < min(len(a), len(b)) and a[-agree - 1] == b[-agree - 1]:
        agree += 1
    return agree


def is_elsewhere(
    dropped: Sequence[str], holders: Sequence[str], folders: set[str], named_folders: set[str]
) -> bool:
    """Whether a file lies in another folder than its name says.

    dropped: the folders in the name that the file's path does not end with; holders: the folders
    of the file from there up; folders: of all files; named_folders: in all names. cat/1.jpg is not
    dog/1.jpg if there is a folder cat, or if other names say dog. Folders of another machine are
    in neither.
    """
    if not dropped or not holders:
        return False
    said, holder = dropped[-1], holders[-1]
    if said in folders and said not in holders:
        return True
    if holder in named_folders and holder not in dropped:
        return True
    return None not in (a := [split_of(said), split_of(holder)]) and a[0] != a[1]


def _name_keys(last: str) -> list[str]:
    return [key(last)]


def _stem_keys(last: str) -> list[str]:
    """The stems that a name without suffix means; a HEIC's is that of the JPEG made from it."""
    if suffix_of(last) in OTHER_PICTURES:
        return [key(stem(last))]
    return [] if is_picture(last) else [key(last)]


def same_content(a: Path, b: Path) -> bool:
    """Whether two files are equal; False if one cannot be read."""
    try:
        return filecmp.cmp(a, b, shallow=False)
    except OSError:
        return False
