"""What sample.py hands to other programs: side-cars beside the photos, files to import."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from report.sidecars import RECORD, SideCars, check_tags
from report.tool_files import write_for_tool
from report.truth import Labeller
from util.errors import UsageError

OUTLETS = ("xmp",)  # values of --write


@dataclass(frozen=True)
class Outlets:
    """write: one of OUTLETS, or None. tool: one of FORMATS, or None."""

    write: str | None
    tool: str | None

    def check(self, labellers: list[Labeller], is_json: bool) -> None:
        """Raise UsageError, before all work, for what cannot be written."""
        if not (self.write or self.tool):
            return
        if is_json or len(labellers) > 1:
            raise UsageError("--write and --format need one checkpoint, and no --json")
        check_tags(labellers[0].model.labels)

    def hand_over(
        self,
        results: Callable[[], Iterable[dict]],
        labeller: Labeller,
        root: Path,
        output: Path,
        recorded: bool,
    ) -> None:
        """Write the files. results: "image" is relative to root, the folder of the images.

        recorded: keep a list of side-cars in the output folder. Raises RunError if a file cannot be
        written, UsageError if a side-car is refused.
        """
        if self.tool:
            full, model = Path(os.path.realpath(root)), f"HybridNet {labeller.checkpoint}"
            write_for_tool(self.tool, output, results(), full, labeller.model.labels, model)
        if self.write:
            cars = SideCars(root, output / RECORD if recorded else None)
            cars.write(results())
            cars.report()
