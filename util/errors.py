"""Errors whose message is the one sentence the user sees."""

from __future__ import annotations


class _ProjectError(Exception):
    """The parent of both."""

    def __str__(self) -> str:
        # an error that a DataLoader worker passes on starts with the worker's traceback
        return super().__str__().rsplit(f"{type(self).__name__}: ", 1)[-1].strip()


class UsageError(_ProjectError):
    """Wrong flags or wrong input: exit code 2."""


class RunError(_ProjectError):
    """The run itself failed, for example with a loss that is not finite: exit code 1."""
