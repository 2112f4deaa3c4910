"""Equal image files in different splits."""

import hashlib
import shutil

import numpy as np

import images.duplicates
from images.duplicates import duplicates


def test_duplicates_are_found_by_content_and_few_files_are_read(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    parts = []
    for name, sizes in (("train", range(100, 160)), ("val", range(150, 170))):
        (tmp_path / name).mkdir()
        parts.append([tmp_path / name / f"{size}.jpg" for size in sizes])
        for path in parts[-1]:
            path.write_bytes(rng.bytes(int(path.stem)))
    shutil.copy(parts[0][3], parts[1][5])
    shutil.copy(parts[0][3], parts[0][4])  # equal files within a split are fine
    read = []
    digest = images.duplicates._content_hash
    monkeypatch.setattr(images.duplicates, "_content_hash", lambda p: read.append(p) or digest(p))
    assert duplicates(*parts) == [(parts[0][3], parts[1][5])]
    assert sorted(read) == sorted([parts[0][3], parts[0][4], parts[1][5]])
    by_hash = [{hashlib.sha256(p.read_bytes()).digest() for p in part} for part in parts]
    assert len(by_hash[0] & by_hash[1]) == 1
