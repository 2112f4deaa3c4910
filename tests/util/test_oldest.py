"""The lower bounds of all requirements are the versions that `make test-oldest` runs with."""

import re

from conftest import REPO
from packaging.version import Version


def versions(text: str, sign: str) -> dict[str, Version]:
    lines = re.findall(rf"^([\w-]+){sign}([\d.]+)", text, re.MULTILINE)
    return {name.lower(): Version(version) for name, version in lines}


def test_lower_bounds_are_tested():
    oldest = REPO / "requirements-oldest.txt"
    paths = {*REPO.glob("requirements*.txt"), *REPO.glob("requirements/*.txt")} - {oldest}
    texts = [path.read_text() for path in paths]
    bounds = versions("\n".join(texts), ">=")
    assert len(bounds) == len({*re.findall(r"^[\w-]+>=\S+", "\n".join(texts), re.MULTILINE)})
    assert len(bounds) > 20
    assert versions(oldest.read_text(), "==") == bounds
