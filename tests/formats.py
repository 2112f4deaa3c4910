"""The tiny set in every format. Each function writes it to a folder and returns its path."""

import gzip
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
from conftest import LABEL_SETS, RANKED, coco, write_json

NAMES = [f"img_{i:02d}.jpg" for i in range(len(LABEL_SETS))]
PAIRS = list(zip(NAMES, LABEL_SETS, strict=True))


def as_gzip(folder: Path) -> Path:
    path = folder / "labels.json.gz"
    path.write_bytes(gzip.compress(json.dumps(coco()).encode()))
    return path


def as_cvat(folder: Path) -> Path:
    content = coco()
    for annotation in content["annotations"]:
        annotation |= {"bbox": [0, 0, 9, 9], "iscrowd": 0, "attributes": {"occluded": False}}
    for category in content["categories"]:
        category["supercategory"] = ""
    about = {"contributor": "", "date_created": "", "description": "", "url": "", "version": ""}
    licenses = [{"name": "", "id": 0, "url": ""}]
    return write_json({"licenses": licenses, "info": about, **content}, folder / "default.json")


def as_label_studio(folder: Path) -> Path:
    ids = {name: i for i, name in enumerate(sorted(RANKED))}
    starts = itertools.cycle(["images/0a1b2c3d-", "images\\0a1b2c3d-", "..\\..\\media\\0a1b2c3d-"])
    content = coco(
        names=[f"{start}{name}" for start, name in zip(starts, NAMES, strict=False)], categories=ids
    )
    info = {"year": 2025, "version": "1.0", "contributor": "Label Studio"}
    path = write_json({**content, "info": info}, folder / "result.json")
    path.write_text(path.read_text().replace("/", "\\/"))
    return path


def as_csv(folder: Path) -> Path:
    path = folder / "table.csv"
    rows = (f"{name},{'|'.join(labels)}" for name, labels in PAIRS)
    path.write_text("\n".join(["file_name,labels", *rows]) + "\n")
    return path


def as_flags(folder: Path) -> Path:
    path = folder / "flags.csv"
    labels = sorted(RANKED)
    rows = (";".join([name, *(str(int(x in s)) for x in labels)]) for name, s in PAIRS)
    path.write_text("\n".join([";".join(["Filename", *labels]), *rows]))
    return path


def as_jsonl(folder: Path) -> Path:
    path = folder / "table.jsonl"
    rows = (json.dumps({"file_name": name, "labels": labels}) for name, labels in PAIRS)
    path.write_text("\n".join(rows))
    return path


def as_voc(folder: Path) -> Path:
    root = folder / "VOC2007"
    (root / "Annotations").mkdir(parents=True)
    for name, labels in PAIRS:
        objects = "".join(
            f"<object><name>{x}</name><difficult>0</difficult></object>" for x in labels
        )
        xml = root / "Annotations" / Path(name).with_suffix(".xml")
        xml.write_text(f"<?xml version='1.0'?><annotation>{objects}</annotation>")
    return root


def as_voc_lists(folder: Path) -> Path:
    main = as_voc(folder) / "ImageSets/Main"
    main.mkdir(parents=True)
    (main / "trainval.txt").write_text("".join(f"{Path(n).stem}\n" for n in NAMES))
    for label in RANKED:
        rows = (f"{Path(n).stem} {1 if label in s else -1:2d}\n" for n, s in PAIRS)
        (main / f"{label}_trainval.txt").write_text("".join(rows))
    return main / "trainval.txt"


def as_nuswide(folder: Path) -> Path:
    names = [name.replace("img_", "x\\img_") for name in NAMES]
    write_nuswide(folder, names, names, [], {x: [x in s for s in LABEL_SETS] for x in RANKED})
    shutil.rmtree(folder / "Groundtruth/TrainTestLabels")
    return folder


def as_folders(folder: Path) -> Path:
    """Some links, some copies; the picture without labels lies beside the folders."""
    root = folder / "photos"
    for i, (name, labels) in enumerate(PAIRS):
        source = folder.parent / "data/images" / name
        for n, label in enumerate(labels):
            target = root / label / (name if i % 2 or not n else f"link_{name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            if i % 2 or not n:
                shutil.copy(source, target)
            else:
                target.symlink_to(root / labels[0] / name)
        if not labels:
            shutil.copy(source, root / name)
    return root


def write_nuswide(folder, names, training, test, concepts) -> None:
    """The official layout, with its oddities: \\, CRLF, spaces at the ends of lines."""
    lists, truth = folder / "ImageList", folder / "Groundtruth"
    for part in (lists, truth / "AllLabels", truth / "TrainTestLabels"):
        part.mkdir(parents=True)
    where = {name: i for i, name in enumerate(names)}
    orders = {"Imagelist": names, "TrainImagelist": training, "TestImagelist": test}
    for file, some in orders.items():
        (lists / f"{file}.txt").write_bytes("".join(f"{n} \r\n" for n in some).encode())
    for concept, flags in concepts.items():
        text = np.where(flags, b"1\n", b"0\n")
        (truth / f"AllLabels/Labels_{concept}.txt").write_bytes(text.tobytes())
        for end, some in (("Train", training), ("Test", test)):
            path = truth / f"TrainTestLabels/Labels_{concept}_{end}.txt"
            path.write_bytes(text[[where[n] for n in some]].tobytes())


WRITERS = (as_gzip, as_cvat, as_label_studio, as_csv, as_flags, as_jsonl, as_voc, as_voc_lists)
WRITERS += (as_nuswide, as_folders)
