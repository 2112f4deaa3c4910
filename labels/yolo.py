"""YOLO's detection folders: which classes are on which image.

    data.yaml                           names: [cat, dog]; or classes.txt, obj.names: a line each
    images/train/a.jpg                  or train/images/a.jpg, or pictures and texts side by side
    labels/train/a.txt                  a line for each object: class, then its box or polygon

A picture without a text has no objects. Splits are those that data.yaml names, or those of folders
called train, val or test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from labels.annotated import AnnotatedImages
from labels.entries import Entry, images_from_entries
from labels.label_numbers import read_label_names
from labels.options import DEFAULTS, ReadOptions
from labels.text import means_data, read_head, read_text, split_of
from util.errors import UsageError
from util.files import is_picture, walk
from util.log import log

NAME = "YOLO"
YAMLS = (".yaml", ".yml")
NAMES = re.compile(r"^names\s*:", re.MULTILINE)  # in a YAML file about classes
LISTS = ("classes.txt", "obj.names", "classes.names", "_darknet.labels")
NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
OBJECT = re.compile(rf"\s*\d+(\s+{NUMBER}){{4,}}\s*")  # class, x, y, width, height or a polygon


def matches(path: Path) -> bool:
    """Whether this is data.yaml, or a folder with texts that list objects beside pictures."""
    if path.is_file():
        return _is_yaml(path)
    if not path.is_dir():
        return False
    for folder, files in walk(path):
        inside = "labels" in folder.lower().split("/")
        stems = {Path(file.name).stem for file in files if is_picture(file.name)}
        for text in (Path(f.path) for f in files if f.name.endswith(".txt")):
            belongs = text.name not in LISTS and (inside or text.stem in stems)
            if belongs and (line := _first_line(text)):
                return bool(OBJECT.fullmatch(line)) and "." in line  # no row of 0 and 1
    return False


def _is_yaml(path: Path) -> bool:
    """Whether this is YAML with the names of classes."""
    return path.suffix.lower() in YAMLS and bool(NAMES.search(read_head(path)[1]))


def _first_line(path: Path) -> str:
    """The first line that is not empty, as far as it is in the head of the file."""
    try:
        return read_head(path)[1].partition("\n")[0]
    except OSError:
        return ""


def read(
    path: Path, image_path: Path | None = None, options: ReadOptions = DEFAULTS
) -> AnnotatedImages:
    """Pictures in order of name. Raises UsageError naming the file and its line."""
    root = path if path.is_dir() else path.parent
    if not matches(root):
        raise UsageError(
            f"{path} has no labels/ beside it: name the folder of the data set instead"
        )
    classes, parts = _classes(path, options.label_names)
    pictures, texts = _files(root)
    text_of = {name: _text_of(name, texts, root) for name in pictures}
    if not pictures:  # they lie elsewhere
        inside = {name: name.removesuffix(".txt").removeprefix("labels/") for name in texts}
        text_of = {inside[name]: name for name in texts if "labels" in name.lower().split("/")}
    used = {*text_of.values()}
    alone = [n for n in texts if n not in used and "labels" in n.lower().split("/")]
    if alone:
        raise UsageError(f"{root} has {len(alone):,} texts without a picture, such as {alone[0]}")
    bare = _folders_without_texts(text_of)
    if bare and len(bare) < len({name.rpartition("/")[0] for name in text_of}):
        log(f"{root}: no text fits the pictures in {', '.join(bare)}: left out")
        text_of = {name: t for name, t in text_of.items() if name.rpartition("/")[0] not in bare}
    without = [name for name, text in text_of.items() if not text]
    if len(without) == len(text_of):
        raise UsageError(f"{root} has no text beside its pictures or in labels/ for their names")
    if without:
        log(f"{root}: {len(without):,} of {len(text_of):,} pictures have no text: no objects")
    entries = (
        Entry(name, name, _objects(texts[text], classes) if text else (), _split(name, parts))
        for name, text in text_of.items()
    )
    return images_from_entries(entries, root, NAME)


def _files(root: Path) -> tuple[list[str], dict[str, Path]]:
    """The pictures, those in folders called images if there are any; and all texts."""
    pictures, texts = [], {}
    for folder, files in walk(root):
        for file in files:
            name = f"{folder}/{file.name}" if folder else file.name
            if is_picture(file.name):
                pictures.append(name)
            elif file.name.endswith(".txt") and file.name not in LISTS:
                texts[name] = Path(file.path)
    inside = [name for name in pictures if "images" in name.lower().split("/")[:-1]]
    return sorted(inside or pictures), texts


def _text_of(picture: str, texts: dict[str, Path], root: Path) -> str | None:
    """images/train/a.jpg -> labels/train/a.txt, or the text beside it; None if there is none."""
    beside = f"{picture.rpartition('.')[0]}.txt"
    before, images, after = f"/{beside}".rpartition("/images/")
    usual = f"{before}/labels/{after}".removeprefix("/") if images else beside
    found = [name for name in dict.fromkeys((usual, beside)) if name in texts]
    if len(found) > 1:
        raise UsageError(f"{root} has both {usual} and {beside} for {picture}: delete one of them")
    return found[0] if found else None


def _folders_without_texts(text_of: dict[str, str | None]) -> list[str]:
    """Folders in which no picture has a text, as those of test images without labels."""
    folders = {name.rpartition("/")[0] for name in text_of}
    return sorted(folders - {name.rpartition("/")[0] for name, text in text_of.items() if text})


def _objects(path: Path, classes: dict[int, str]) -> Iterator[str]:
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number},"
        if not OBJECT.fullmatch(line):
            raise UsageError(f"{where} has {line[:60]!r}: a class and its box or polygon is needed")
        index = int(line.split()[0])
        if index not in classes:
            raise UsageError(f"{where} has the class {index}, which has no name in data.yaml")
        yield classes[index]


# --- names of classes, and splits ---------------------------------------------------------------


def _classes(path: Path, label_names: Path | None) -> tuple[dict[int, str], dict[str, str]]:
    """The names by number, and the split of each folder that data.yaml names.

    They are in the YAML file that was named, else in files of the folder, or of one above it.
    """
    if label_names:
        return {int(i): name for i, name in read_label_names(label_names).items()}, {}
    root = path if path.is_dir() else path.parent
    files = [path] if path.is_file() else _files_of_names(root)
    if path.is_dir():  # labels/classes.txt, as LabelImg writes it
        found = ((folder, file) for folder, files_in in walk(root) for file in files_in)
        files += [Path(file.path) for folder, file in found if folder and file.name == LISTS[0]]
    above = root.absolute()
    while not files and means_data(above.name.removeprefix("obj_")):
        above = above.parent
        files = _files_of_names(above)
    names, parts, source = None, {}, None
    for file in files:
        found, more = _from_yaml(file) if _is_yaml(file) else (_from_lines(file), {})
        if names not in (None, found):
            raise UsageError(f"{source} and {file} name other classes: delete one of them")
        names, parts, source = found, parts | more, file
    if names is None:
        raise UsageError(
            f"{root} has no data.yaml with names: and no classes.txt: give them with --label_names"
        )
    first = min(names)
    log(f"{root}: {source} has the names of the classes; {first} is {names[first]!r}")
    return names, parts


def _files_of_names(folder: Path) -> list[Path]:
    """YAML files with names of classes, classes.txt, obj.names and the like in a folder."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return [file for file in files if file.name in LISTS or _is_yaml(file)]


def _from_lines(path: Path) -> dict[int, str]:
    try:
        lines = read_text(path).rstrip().split("\n")
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror})") from None
    if not all(line.strip() for line in lines):
        raise UsageError(f"{path} needs the name of a class on each line")
    return {number: line.strip() for number, line in enumerate(lines)}


def _from_yaml(path: Path) -> tuple[dict[int, str], dict[str, str]]:
    try:
        import yaml
    except ImportError:
        raise UsageError(f"{path} needs PyYAML: pip install pyyaml, or write classes.txt") from None
    try:
        content = yaml.load(read_text(path), yaml.BaseLoader)  # texts only: no becomes no boolean
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{path} is not YAML ({' '.join(str(error).split())})") from None
    content = content if isinstance(content, dict) else {}
    names = content.get("names")
    if isinstance(names, list):
        names = {str(number): name for number, name in enumerate(names)}
    if not isinstance(names, dict) or not all(
        str(i).isdecimal() and isinstance(name, str) for i, name in names.items()
    ):
        raise UsageError(f"{path} needs names: a list of classes, or a name for each number")
    if content.get("nc", str(len(names))) != str(len(names)):
        raise UsageError(f"{path} has nc: {content['nc']}, but {len(names)} names")
    parts: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        folders = content.get(split) or []
        for folder in [folders] if isinstance(folders, str) else folders:
            steps = [s for s in re.split(r"[\\/]", str(folder)) if s not in ("", ".", "..")]
            if steps and not steps[-1].endswith(".txt"):
                parts.setdefault("/".join(steps), set()).add(split)
    alone = {folder: splits.pop() for folder, splits in parts.items() if len(splits) == 1}
    return {int(number): name for number, name in names.items()}, alone


def _split(name: str, parts: dict[str, str]) -> str | None:
    """The split of a picture by data.yaml, else by the names of its folders."""
    folders = name.split("/")[:-1]
    inside = f"/{'/'.join(folders)}/"
    found = {split for part, split in parts.items() if f"/{part}/" in inside}
    found = found or {split for folder in folders if (split := split_of(folder))}
    return found.pop() if len(found) == 1 else None
