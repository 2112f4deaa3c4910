"""Errors whose message is the one sentence the user sees."""

from __future__ import annotations


class _ProjectError(Exception):
    """The message is the one sentence the user sees."""

    def __str__(self) -> str:
        # a DataLoader's worker puts its traceback before the message it passes on
        return super().__str__().rsplit(f"{type(self).__name__}: ", 1)[-1].strip()


class UsageError(_ProjectError):
    """Wrong flags or input, exit code 2."""


class RunError(_ProjectError):
    """The run itself failed (a non-finite loss, say): one sentence, exit code 1."""
