"""Most cases of benchmarks/robustness/cases.py, written by the tests themselves."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from images.decode import FORMATS

LABELS = ("cat", "dog", "hat")
BASE = ("cat dog", "dog", "cat", "cat hat", "hat dog", "cat dog hat", "hat", "dog cat")
SETS = [text.split() for text in BASE]
NAMES = [f"p{i}.jpg" for i in range(8)]
FLAGS = [[int(label in labels) for label in LABELS] for labels in SETS]
ROWS = list(zip(NAMES, SETS, FLAGS, strict=True))
KINDS = {".jfif": "JPEG", ".jpe": "JPEG", ".jp2": "JPEG2000"}  # suffix -> Pillow's format
if "AVIF" not in FORMATS:  # before Pillow 11.3; readers go by the content
    KINDS[".avif"] = "JPEG"


def pictures(folder: Path, names: Iterable[str] = NAMES) -> None:
    """Different tiny pictures of these names, in the formats that their suffixes say."""
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (24, 20), (i * 9 % 256, i * 40 % 256, 90))
        picture.save(path, KINDS.get(path.suffix))


def table(path: Path, header: str, rows: Iterable[str], start: str = "") -> None:
    """A text file of lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(start + "\n".join([header, *rows]) + "\n")


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def quoted(text: str) -> str:
    """A CSV cell in quotes."""
    return '"' + text.replace('"', '""') + '"'


def write_copies(root: Path) -> None:
    """All of them, as folders of `root`."""
    for write in (kaggle, cells, onehot, separators, columns, tools, web, folders, urls):
        write(root)


def kaggle(root: Path) -> None:
    head = ["haze primary", "agriculture clear primary water", "clear primary", "clear primary"]
    head += ["agriculture clear habitation primary road", "haze primary water"]
    head += ["agriculture clear cultivation primary water", "haze primary"]
    pictures(root / "planet_head/train-jpg", [f"train_{i}.jpg" for i in range(8)])
    table(
        root / "planet_head/labels.csv",
        "image_name,tags",
        [f"train_{i}.jpg,{tags}" for i, tags in enumerate(head)],
    )
    cells = ["agriculture", "agriculture primary water", "agriculture cloudy", "agriculture"]
    cells += ["haze", "agriculture water", "primary", "agriculture cloudy road", "cloudy road"]
    cells += ["primary", "agriculture primary road", "clear cloudy haze", "haze"]
    cells += ["clear haze water", "agriculture road", "cloudy haze road", "agriculture cloudy"]
    cells += ["primary water", "clear", "road", "water", "cloudy road water", "agriculture road"]
    cells += ["agriculture cloudy water"]
    pictures(root / "planet/train-jpg", [f"train_{i}.jpg" for i in range(24)])
    rows = [f"train_{i},{cell}" for i, cell in enumerate(cells)]
    table(root / "planet/train_v2.csv", "image_name,tags", rows)
    numbers = ("4", "1 2 3", "4 0 5", "2 4", "1", "3 4 5", "5 1", "5")
    table(root / "hpa/train.csv", "Id,Target", [f"aa{i}-b,{n}" for i, n in enumerate(numbers)])
    colours = ("red", "green", "blue", "yellow")
    pictures(root / "hpa/train", [f"aa{i}-b_{colour}.png" for i in range(8) for colour in colours])
    found = ("No Finding", "Mass|Hernia", "Hernia|Nodule", "Oedema|Nodule", "No Finding", "Nodule")
    found += ("Mass|Oedema", "Hernia|Nodule", "Hernia|Mass", "Mass|Oedema", "Mass|Nodule", "Oedema")
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Gender,Size[Width,Height],"
    rows = [f"{i:08d}_000.png,{cell},0,{i},M,2682,2749," for i, cell in enumerate(found)]
    table(root / "nih/Data_Entry_2017.csv", header, rows)
    for i in range(12):
        pictures(root / f"nih/images_00{1 + i % 2}/images", [f"{i:08d}_000.png"])
    bits = [3, 3, 3, 8, 8, 5, 15, 10, 2, 15, 14, 10]
    signs = [[1 if bit == "1" else -1 for bit in f"{number:04b}"] for number in bits]
    names = [f"{i:06d}.jpg" for i in range(1, 13)]
    pictures(root / "celeba/img_align_celeba", names)
    rows = [
        " ".join([name, *(f"{s:2d}" for s in row)]) for name, row in zip(names, signs, strict=True)
    ]
    header = "Bald Smiling Young Eyeglasses"
    table(root / "celeba/list_attr_celeba.txt", header + " ", rows, start="12\n")
    rows = [",".join([name, *map(str, row)]) for name, row in zip(names, signs, strict=True)]
    table(root / "celeba/list_attr_celeba.csv", f"image_id,{header.replace(' ', ',')}", rows)
    rows = [f"{name},{'|'.join(labels)}" for name, labels, _ in ROWS]
    pictures(root / "kaggle_root/own/images")
    table(root / "kaggle_root/own/annotations.csv", "file_name,labels", rows)
    pictures(root / "kaggle_root/planet/train-jpg")
    pictures(root / "kaggle_root/planet/test-jpg", [f"t{name}" for name in NAMES])
    table(root / "kaggle_root/planet/train.csv", "file_name,labels", rows)


def cells(root: Path) -> None:
    folder = root / "numpy_repr"
    pictures(folder / "im")
    studio = [json.dumps({"choices": s}) if len(s) > 1 else s[0] for s in SETS]
    kinds = {
        "numpy": ["[" + " ".join(map(repr, s)) + "]" for s in SETS],
        "set": ["{" + ", ".join(map(repr, s)) + "}" for s in SETS],
        "json": [json.dumps(s) for s in SETS],
        "ls": studio,
    }
    for name, texts in kinds.items():
        rows = [f"{file},{quoted(text)}" for file, text in zip(NAMES, texts, strict=True)]
        table(folder / f"{name}.csv", "file_name,labels", rows)
    folder = root / "labelstudio"
    pictures(folder / "im")
    paths = [f"/data/upload/1/0a1b2c0{i}-{name}" for i, name in enumerate(NAMES)]
    day = "2024-01-01T00:00:00Z"
    rows = [
        f"{path},{i},{quoted(text)},1,{i},{day},{day},3.2"
        for i, (path, text) in enumerate(zip(paths, studio, strict=True))
    ]
    header = "image,id,choice,annotator,annotation_id,created_at,updated_at,lead_time"
    table(folder / "export.csv", header, rows)
    pairs = list(zip(paths, SETS, strict=True))
    records = [
        {"image": path, "id": i, "choice": {"choices": s} if len(s) > 1 else s[0], "annotator": 1}
        for i, (path, s) in enumerate(pairs)
    ]
    write_json(folder / "export-min.json", records)
    start = {"from_name": "choice", "to_name": "image", "type": "choices"}
    tasks = [
        {
            "id": i,
            "annotations": [{"id": i, "result": [{"value": {"choices": s}, **start}]}],
            "data": {"image": path},
        }
        for i, (path, s) in enumerate(pairs)
    ]
    write_json(folder / "export.json", tasks)


def onehot(root: Path) -> None:
    folder = root / "onehot_extra"
    pictures(folder / "im")
    plain = [[name, *map(str, flags)] for name, _, flags in ROWS]
    head = ["file_name", *LABELS]

    def write(name: str, header: list[str], rows: Iterable[list[str]]) -> None:
        table(folder / name, ",".join(header), map(",".join, rows))

    write("id01.csv", ["id", *head], ([str(i % 2), *row] for i, row in enumerate(plain)))
    write("index.csv", ["", *head], ([str(i), *row] for i, row in enumerate(plain)))
    write("unnamed.csv", ["Unnamed: 0", *head], ([str(i), *row] for i, row in enumerate(plain)))
    write("fold.csv", [*head, "fold"], ([*row, str(i % 2)] for i, row in enumerate(plain)))
    write("isvalid.csv", [*head, "is_valid"], ([*r, str(i > 5)] for i, r in enumerate(plain)))
    size = ["file_name", "width", "height", *LABELS]
    write("width.csv", size, ([row[0], "48", "40", *row[1:]] for row in plain))
    words = {"xmark": ("", "x"), "yn": ("N", "Y"), "plusminus": ("-1", "1")}
    for name, (no, yes) in words.items():
        write(f"{name}.csv", head, ([r[0], *((no, yes)[v == "1"] for v in r[1:])] for r in plain))
    numbers = {"counts": ("3", "2", "1"), "soft": ("0.9", "0.6", "0.2")}
    for name, values in numbers.items():
        rows = [
            [name, *(value if flag else "0" for value, flag in zip(values, flags, strict=True))]
            for name, _, flags in ROWS
        ]
        write(f"{name}.csv", head, rows)
    unsure = ["-1.0", "", "", "-1.0", "", "", "-1.0", ""]
    rows = [
        [f"CheXpert-v1.0-small/train/{name}", "F", "60", "Frontal", f"{cat}.0", dog, f"{hat}.0"]
        for (name, _, (cat, _, hat)), dog in zip(ROWS, unsure, strict=True)
    ]
    write("chexpert.csv", ["Path", "Sex", "Age", "Frontal/Lateral", *LABELS], rows)


def separators(root: Path) -> None:
    folder = root / "sep"
    pictures(folder / "im")
    joined = {"hash": " ", "slash": " / ", "plus": " and ", "excel": "|"}
    for name, between in joined.items():
        sets = [[f"#{x}" for x in s] for s in SETS] if name == "hash" else SETS
        delimiter, start = (";", "sep=;\n") if name == "excel" else (",", "")
        rows = [f"{n}{delimiter}{between.join(s)}" for n, s in zip(NAMES, sets, strict=True)]
        table(folder / f"{name}.csv", f"file_name{delimiter}labels", rows, start)
    rows = [f'{name},"{(", ", "; ")[i % 2].join(s)}"' for i, (name, s, _) in enumerate(ROWS)]
    table(folder / "mixed.csv", "file_name,labels", rows)
    text = "\n".join(["file_name,labels", *(f"{n},{'|'.join(s)}" for n, s, _ in ROWS)])
    (folder / "labels.csv.gz").write_bytes(gzip.compress(text.encode()))
    things = "red dress,blue hat;blue dress,red shoe;red hat,blue shoe;blue hat,red bag;"
    things += "red shoe,blue bag;blue shoe,red dress;red bag,blue dress;blue bag,red hat"
    pairs = list(zip(NAMES, (pair.split(",") for pair in things.split(";")), strict=True))
    rows = [f"{name},{label}" for name, pair in pairs for label in pair]
    table(folder / "long.csv", "file_name,label", rows)
    rows = [f"{name},{'; '.join(pair)}" for name, pair in pairs]
    table(folder / "multi.csv", "file_name,labels", rows)
    folder = root / "sep2"
    for name, between in {"newline": "\n", "comma_space_one": ", ", "hash_sep": "#"}.items():
        rows = [f'{i}.jpg,"{between.join(s)}"' for i, s in enumerate(SETS[:6])]
        table(folder / f"{name}.csv", "file_name,labels", rows)
    rows = ["0.jpg,cat|dog,0", "1.jpg,dog,1", "2.jpg,cat,2"]
    table(folder / "partition.csv", "file_name,labels,partition", rows)
    rows = ["0.jpg,cat|dog,TRAINING", "1.jpg,dog,VALIDATION", "2.jpg,cat,UNASSIGNED"]
    table(folder / "split_auto.csv", "file_name,labels,split", rows)


def columns(root: Path) -> None:
    folder = root / "wide"
    pictures(folder / "im")
    rows = [",".join([name, *s, *[""] * (3 - len(s))]) for name, s, _ in ROWS]
    table(folder / "a.csv", "image,label_1,label_2,label_3", rows)
    table(folder / "b.csv", "image,label,label2,label3", rows)
    table(folder / "c.csv", "image,category,subcategory,colour", rows)
    table(folder / "d.csv", "file_name,labels", [",".join([name, *s]) for name, s, _ in ROWS])


def tools(root: Path) -> None:
    pictures(root / "cvat/im")
    tags = [
        f'<image id="{i}" name="{name}" width="24" height="20">'
        + "".join(f'<tag label="{label}" source="manual"></tag>' for label in labels)
        + "</image>"
        for i, (name, labels, _) in enumerate(ROWS)
    ]
    start = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>'
    table(root / "cvat/annotations.xml", start, [*tags, "</annotations>"])
    stems = ("my photo 1", "my photo 2", "plain3", "plain4")
    four = dict(zip(stems, (("cat", "dog"), ("dog",), ("cat",), ("dog",)), strict=True))
    named = [f'"{stem}"' if " " in stem else stem for stem in stems]
    for part in ("tags_default", "tags_train", "boxes_train"):
        folder, split = root / "cvat_voc" / part, part.split("_")[1]
        pictures(folder / "JPEGImages", [f"{stem}.jpg" for stem in stems])
        table(folder / "labelmap.txt", "# label:color_rgb:parts:actions", ["cat:::", "dog:::"])
        main = folder / "ImageSets/Main"
        table(main / f"{split}.txt", named[0], named[1:])
        for label in ("cat", "dog") if part.startswith("tags") else ():
            lines = [
                f"{n} {1 if label in four[s] else -1}" for n, s in zip(named, stems, strict=True)
            ]
            table(main / f"{label}_{split}.txt", lines[0], lines[1:])
        for stem in stems:
            boxes = four[stem] if part.startswith("boxes") else ()
            write_xml(folder / f"Annotations/{stem}.xml", f"{stem}.jpg", boxes)
    for name, labels, _ in ROWS:
        write_xml(root / "vocflat/train" / name.replace("jpg", "xml"), name, labels)
        write_xml(root / "vocflat/xmls" / name.replace("jpg", "xml"), name, labels)
    pictures(root / "vocflat/train")
    for year in (2007, 2012):
        folder = root / f"vocdevkit/VOCdevkit/VOC{year}"
        pictures(folder / "JPEGImages", [f"{year}_1.jpg"])
        write_xml(folder / f"Annotations/{year}_1.xml", f"{year}_1.jpg", ["cat"])
        table(folder / "ImageSets/Main/train.txt", f"{year}_1", [])


def write_xml(path: Path, name: str, labels: Iterable[str]) -> None:
    """PASCAL VOC's file of one image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(f"<object><name>{label}</name></object>" for label in labels)
    path.write_text(f"<annotation><filename>{name}</filename>{objects}</annotation>")


def web(root: Path) -> None:
    pictures(root / "fiftyone/data", [f"{i:06d}.jpg" for i in range(6)])
    numbers = {f"{i:06d}": n for i, n in enumerate(([2], [1], [2, 0], [1], [2, 0], [2]))}
    write_json(root / "fiftyone/labels.json", {"classes": LABELS, "labels": numbers})
    parts = {
        "train": "10 11 11 10 01 11 01 11",
        "valid": "11 10 11 10",
        "test": "01 01 11 10",
    }
    for part, bits in parts.items():
        names = [f"{part}{i}_jpg.rf.0a1b{i}.jpg" for i in range(len(bits.split()))]
        pictures(root / "roboflow/ds" / part, names)
        rows = [f"{n}, {b[0]}, {b[1]}, 0" for n, b in zip(names, bits.split(), strict=True)]
        header = "filename, cat, dog, Unlabeled"
        table(root / "roboflow/ds" / part / "_classes.csv", header, rows)
    folder = root / "hf_imagefolder"
    pictures(folder / "train")
    numbers = [[LABELS.index(label) for label in labels] for labels in SETS]
    for name, values in (
        ("train/metadata.jsonl", SETS),
        ("ints.jsonl", numbers),
        ("onehot.jsonl", FLAGS),
    ):
        records = [{"file_name": n, "labels": v} for n, v in zip(NAMES, values, strict=True)]
        (folder / name).write_text("\n".join(map(json.dumps, records)))
    records = [{"file_name": name, "labels": labels} for name, labels, _ in ROWS]
    write_json(folder / "records.json", records)
    write_json(folder / "dict.json", dict(zip(NAMES, SETS, strict=True)))
    folder = root / "captions"
    pictures(folder / "im", [f"{i}.jpg" for i in range(4)])
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 24, "height": 20} for i in range(4)]
    captions = [{"image_id": i, "id": i, "caption": "a thing"} for i in range(4)]
    write_json(folder / "captions_train.json", {"images": images, "annotations": captions})
    with_urls = [{"id": i, "coco_url": f"http://host/train/{i}.jpg"} for i in range(4)]
    cans = [{"id": i, "image_id": i, "category_id": 1} for i in range(4)]
    names = [{"id": 1, "name": "aerosol_can"}, {"id": 2, "name": "air_conditioner"}]
    lvis = {"images": with_urls, "annotations": cans, "categories": names}
    write_json(folder / "lvis_v1_train.json", lvis)
    texts = {
        "images": [{"id": f"im{i}", "file_name": f"{i}.jpg"} for i in range(4)],
        "annotations": [{"id": i, "image_id": f"im{i}", "category_id": 1} for i in range(4)],
        "categories": [{"id": 1, "name": "cup"}],
    }
    write_json(folder / "stringids.json", texts)


def folders(root: Path) -> None:
    pictures(root / "tree/a/animal", [f"{i}.jpg" for i in range(4)])
    pictures(root / "tree/a/animal/cat", [f"c{i}.jpg" for i in range(4)])
    pictures(root / "tree/a/vehicle", [f"v{i}.jpg" for i in range(4)])
    for name in "bc":
        for part in ("train", "val"):
            for label in ("cat", "dog"):
                names = [f"{part}{label[0]}{i}.jpg" for i in range(4)]
                pictures(root / f"tree/{name}/{part}/{label}", names)
    pictures(root / "tree/b/__MACOSX/train/cat", ["._train0.jpg"])
    (root / "tree/c/models").mkdir()
    for suffix, label in {"jfif": "dog", "avif": "hat", "jpe": "pen", "jp2": "cup"}.items():
        names = [f"{label}{i}.{suffix}" for i in range(4)]
        pictures(root / "suffixes/photos" / label, names)
    pictures(root / "suffixes/photos/cat", [*(f"c{i}.jpg" for i in range(4)), "8.avif", "9.ppm"])


def urls(root: Path) -> None:
    pictures(root / "urls/im", ["c.jpg", "d.jpg", "e.jpg", "my cat.jpg", "b#1.jpg"])
    starts = {
        "abs": "/home/me/im/",
        "fileurl": "file:///home/me/im/",
        "http": "https://host/x/",
        "kag": "../input/some-set/im/",
        "lsl": "/data/local-files/?d=photos/",
        "win": "C:\\data\\im\\",
    }
    for name, start in starts.items():
        end = "?size=2" if name == "http" else ""
        rows = [f"{start}c.jpg,cat", f"{start}d.jpg{end},dog"]
        table(root / f"urls/{name}.csv", "file_name,labels", rows)
    rows = ["my%20cat.jpg,cat", "b#1.jpg,dog"]
    table(root / "urls/pct.csv", "file_name,labels", rows)
