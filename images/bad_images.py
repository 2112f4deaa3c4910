"""Images that cannot be read: found all at once, or refused, or left out and listed.

A list of them is a file of JSON lines, {"image": path, "reason": sentence}, one for each.
"""

from __future__ import annotations

import json
from pathlib import Path

from torch.utils.data import DataLoader, Dataset

from images.decode import load_pixels
from images.shards import ShardMember
from util.errors import RunError, UsageError
from util.files import write_atomically
from util.log import log, progress

FILE = "bad_images.jsonl"
NAMED = 5  # in a sentence; a list has all
HINT = "data_loader.py --check lists all such images, train.py --skip_bad_images does without"


def raise_if_any(errors: list[UsageError]) -> None:
    """Raise one UsageError for the errors of several images, if there are any."""
    if errors:
        more = f"; and {len(errors) - NAMED:,} more" if len(errors) > NAMED else ""
        raise UsageError(f"{'; '.join(map(str, errors[:NAMED]))}{more} ({HINT})")


class BadImages:
    """The list that a run of `train.py --skip_bad_images` keeps in its output folder.

    Every process that loads images adds to it at once, so that an interruption forgets none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, image: Path | ShardMember, error: UsageError) -> None:
        """Note an image, and say so, unless it is known. Raises RunError."""
        if str(image) in self.read():
            return
        log(f"note: {error}; left out")
        try:  # one write, which the system appends as a whole whoever else does so, too
            with self.path.open("ab", buffering=0) as file:
                file.write(_line(image, error))
        except OSError as reason:
            raise RunError(f"cannot write {self.path} ({reason.strerror})") from None

    def read(self) -> dict[str, str]:
        """Image -> reason."""
        try:
            entries = [json.loads(line) for line in self.path.read_bytes().splitlines()]
            return {entry["image"]: entry["reason"] for entry in entries}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, LookupError, TypeError):
            raise UsageError(f"{self.path} is damaged: remove it") from None

    def forget(self) -> None:
        """A run begins anew."""
        self.path.unlink(missing_ok=True)


def _line(image: Path | ShardMember, error: UsageError) -> bytes:
    return json.dumps({"image": str(image), "reason": str(error)}).encode() + b"\n"


class _Errors(Dataset):
    """Image files one by one: position, and the UsageError of reading it or None."""

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


def check_images(
    paths: list[Path] | list[ShardMember], num_workers: int, report: Path
) -> list[UsageError]:
    """Decode every image in full and list the bad ones in `report`; returns why, in their order."""
    loader = DataLoader(_Errors(paths), batch_size=16, num_workers=num_workers, collate_fn=list)
    bad = [pair for batch in progress(loader, "checking") for pair in batch if pair[1]]
    lines = b"".join(_line(paths[index], error) for index, error in bad)
    write_atomically(report, lambda temporary: temporary.write_bytes(lines))
    return [error for _, error in bad]
