"""Images that cannot be read: report them together, list them all, or skip them.

A list of bad images is a file of JSON lines, one {"image": path, "reason": sentence} for each.
"""

from __future__ import annotations

import json
from pathlib import Path

from torch.utils.data import DataLoader, Dataset

from images.decode import load_pixels
from images.shards import ShardMember
from util.errors import RunError, UsageError
from util.files import write_whole
from util.log import log, progress
from util.reading import MOST_JSON, open_file

FILE = "bad_images.jsonl"
NAMED = 5  # images named in one error message
HINT = "data_loader.py --check lists all bad images, train.py --skip_bad_images skips them"


def join_errors(errors: list[UsageError]) -> UsageError:
    """One error for several images that cannot be read."""
    more = f"; and {len(errors) - NAMED:,} more" if len(errors) > NAMED else ""
    return UsageError(f"{'; '.join(map(str, errors[:NAMED]))}{more} ({HINT})")


class BadImages:
    """The list that `train.py --skip_bad_images` keeps in its output folder.

    Each process adds a bad image as soon as it finds one, so an interrupted run loses none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: set[str] = set()  # images that are listed, as far as this process has read
        self._size = 0  # bytes of the file that it has read

    def add(self, image: Path | ShardMember, error: UsageError) -> None:
        """List an image and log it, unless it is listed already. Raises RunError."""
        if str(image) in self._known:
            return
        self._read_on()
        if str(image) in self._known:
            return
        log(f"note: {error}; skipped")
        try:  # one unbuffered append: lines of several processes do not mix
            with self.path.open("ab", buffering=0) as file:
                file.write(_line(image, error))
        except OSError as reason:
            raise RunError(f"cannot write {self.path} ({reason.strerror})") from None
        self._known.add(str(image))

    def _read_on(self) -> None:
        """Read the lines that other processes have added. Raises UsageError as `read` does."""
        entries, self._size = self._entries(self._size)
        self._known.update(entry["image"] for entry in entries)

    def read(self) -> dict[str, str]:
        """Image -> reason. Raises UsageError if the file is damaged."""
        return {entry["image"]: entry["reason"] for entry in self._entries(0)[0]}

    def _entries(self, start: int) -> tuple[list[dict[str, str]], int]:
        """The lines from byte `start` on, and where they end."""
        try:
            with open_file(self.path, MOST_JSON) as file:
                file.seek(start)
                content = file.read()
            entries = [json.loads(line) for line in content.splitlines()]
            if all(isinstance(e["image"], str) and isinstance(e["reason"], str) for e in entries):
                return entries, start + len(content)
        except FileNotFoundError:
            return [], 0
        except (OSError, UsageError, ValueError, LookupError, TypeError, RecursionError):
            pass
        raise UsageError(f"{self.path} is damaged: remove it")

    def forget(self) -> None:
        """Start with an empty list: a new run begins."""
        self.path.unlink(missing_ok=True)


class Circle:
    """Positions 0 … length - 1 in a circle; some get removed.

    A union-find with path halving (Tarjan, Data Structures and Network Algorithms, SIAM 1983): any
    number of calls takes nearly constant time for each.
    """

    def __init__(self, length: int) -> None:
        self._next = list(range(length))  # a position that is left leads to itself
        self.num_left = length

    def first(self, position: int) -> int:
        """This position, or the first one after it that is left. One must be left."""
        following = self._next
        while following[position] != position:
            following[position] = following[following[position]]
            position = following[position]
        return position

    def remove(self, position: int) -> None:
        """Remove a position that is left."""
        self.num_left -= 1
        if self.num_left:
            self._next[position] = self.first((position + 1) % len(self._next))


def _line(image: Path | ShardMember, error: UsageError) -> bytes:
    return json.dumps({"image": str(image), "reason": str(error)}).encode() + b"\n"


def check_images(
    paths: list[Path] | list[ShardMember], num_workers: int, report: Path
) -> list[UsageError]:
    """Decode every image in full and list the bad ones in `report`. Returns their errors.

    Raises UsageError if `report` is a file of another kind: it is not overwritten.
    """
    try:
        BadImages(report).read()
    except UsageError:
        raise UsageError(f"{report} is no list of bad images: choose another name") from None
    loader = DataLoader(_ReadErrors(paths), batch_size=16, num_workers=num_workers, collate_fn=list)
    bad = [pair for batch in progress(loader, "checking") for pair in batch if pair[1]]
    lines = b"".join(_line(paths[index], error) for index, error in bad)
    write_whole(report, lines)
    return [error for _, error in bad]


class _ReadErrors(Dataset):
    """For each image: its index and the error of reading it, or None."""

    def __init__(self, paths: list[Path] | list[ShardMember]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[int, UsageError | None]:
        try:
            load_pixels(self.paths[index])
        except UsageError as error:
            return index, error
        return index, None
