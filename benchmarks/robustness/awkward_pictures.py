"""Small files that hold many pixels: how much memory does it take to read them?

    python benchmarks/robustness/awkward_pictures.py

Writes each picture alone into a folder and does what `data_loader.py --check --num_workers 0` does
there, in a process of its own. Prints a Markdown table: the size of the file, what became of it,
and the most memory beyond that for a picture of 8×8 pixels. Needs Linux, and 2 GB to write the
pictures. Exit code 1 if a picture takes more than the limit, or ends in anything but one sentence.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tables import add_save_flag, print_table  # noqa: E402

import data_loader  # noqa: E402
from images.memory import MAX_BYTES  # noqa: E402
from util.cli import ArgumentParser, positive_int, run_script  # noqa: E402
from util.errors import RunError  # noqa: E402
from util.log import log  # noqa: E402

SIDE = 8_000  # pixels; 13,377 is the limit
SLACK = 200_000_000  # bytes: what else differs between two runs, and the file itself
Picture = tuple[str, str, Callable[[Path, int], None]]  # what, file name, how to write it


def saved(mode: str, colour: object, side: int | None = None, **how: object) -> Callable:
    """How to write a picture of one colour with Pillow."""

    def write(path: Path, largest: int) -> None:
        size = side or largest
        Image.new(mode, (size, size), colour).save(path, **how)

    return write


def frames(count: int) -> Callable:
    """How to write a picture of many frames of 1000×1000 pixels."""

    def write(path: Path, largest: int) -> None:
        pages = [Image.new("RGB", (1000, 1000), (n % 256, n // 256, 0)) for n in range(count)]
        pages[0].save(path, save_all=True, append_images=pages[1:])

    return write


def cut(write: Callable) -> Callable:
    """The first half of a picture's file."""

    def write_half(path: Path, largest: int) -> None:
        write(path, largest)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return write_half


def with_text(kind: bytes) -> Callable:
    """How to write a PNG with a text that unpacks to 1 GB."""

    def write(path: Path, largest: int) -> None:
        Image.new("RGB", (8, 8)).save(path)
        whole, packer = path.read_bytes(), zlib.compressobj(9)
        packed = b"".join(packer.compress(bytes(1 << 24)) for _ in range(64)) + packer.flush()
        text = kind + b"k\0\0" + packed
        chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
        path.write_bytes(whole[:33] + chunk + whole[33:])

    return write


def long_exif(path: Path, largest: int) -> None:
    """A JPEG before whose pixels there are 10 MB of EXIF, in segments of 64 kB."""
    Image.new("RGB", (800, 600)).save(path)
    whole, content = path.read_bytes(), b"Exif\0\0" + b"II*\0\x08\0\0\0" + bytes(65_000)
    segment = b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content
    path.write_bytes(whole[:2] + segment * 160 + whole[2:])


def turned(path: Path, largest: int) -> None:
    """A photo that was taken with the camera on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (largest, largest)).save(path, exif=exif)


DEFLATE = {"compression": "tiff_deflate"}
PICTURES: list[Picture] = [
    ("PNG, 16 bits", "a.png", saved("I;16", 1000)),
    ("PNG, RGB", "b.png", saved("RGB", (1, 2, 3))),
    ("PNG, RGBA", "c.png", saved("RGBA", (1, 2, 3, 100))),
    ("PNG, palette, transparent", "d.png", saved("P", 0, transparency=0)),
    ("PNG, zTXt that unpacks to 1 GB", "e.png", with_text(b"zTXt")),
    ("PNG, iCCP that unpacks to 1 GB", "f.png", with_text(b"iCCP")),
    ("PNG, half of the file", "g.png", cut(saved("RGB", (1, 2, 3)))),
    ("TIFF, float", "a.tif", saved("F", 0.5, **DEFLATE)),
    ("TIFF, RGBA", "b.tif", saved("RGBA", (1, 2, 3, 4), **DEFLATE)),
    ("TIFF, 1 bit", "c.tif", saved("1", 1, compression="group4")),
    ("TIFF, 300 pages", "d.tif", frames(300)),
    ("GIF, palette, transparent", "a.gif", saved("P", 0, transparency=0)),
    ("GIF, 1,000 frames", "b.gif", frames(1000)),
    ("JPEG", "a.jpg", saved("RGB", (1, 2, 3))),
    ("JPEG, EXIF: turned", "b.jpg", turned),
    ("JPEG, CMYK", "c.jpg", saved("CMYK", (1, 2, 3, 4))),
    ("JPEG, progressive", "d.jpg", saved("RGB", (1, 2, 3), progressive=True, subsampling=0)),
    ("JPEG, CMYK, progressive", "e.jpg", saved("CMYK", (1, 2, 3, 4), progressive=True)),
    ("JPEG, 10 MB of EXIF", "f.jpg", long_exif),
    ("JPEG, half of the file", "g.jpg", cut(saved("RGB", (1, 2, 3)))),
    ("JPEG 2000", "a.jp2", saved("RGB", (1, 2, 3))),
    ("WebP", "a.webp", saved("RGB", (1, 2, 3), quality=10, method=0)),
    ("WebP, too large", "b.webp", saved("RGB", (1, 2, 3), 13_000, quality=10, method=0)),
    ("WebP, 200 frames", "c.webp", frames(200)),
    ("AVIF", "a.avif", saved("RGB", (1, 2, 3), speed=10, quality=10)),
    ("AVIF, RGBA", "b.avif", saved("RGBA", (1, 2, 3, 4), speed=10, quality=10)),
    ("HEIC", "a.heic", saved("RGB", (1, 2, 3), 4_000, quality=10)),
    ("BMP, 1 bit", "a.bmp", saved("1", 1)),
    ("PBM", "a.pbm", saved("1", 1)),
    ("TGA", "a.tga", saved("RGB", (1, 2, 3), compression="tga_rle")),
    ("ICO under the name .png", "h.png", saved("RGB", (1, 2, 3), 256, format="ICO")),
    ("PSD under the name .png", "i.png", lambda path, largest: path.write_bytes(photoshop(13_000))),
]


def photoshop(side: int) -> bytes:
    """The header of a PSD; Pillow needs no more to open it."""
    head = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, side, side, 8, 3)
    return head + bytes(12) + b"\0\1" + bytes(6 * side)


def check(folder: Path, name: str) -> tuple[int, str]:
    """The peak memory of data_loader.py --check in bytes, and what it said of the picture."""
    (folder / "labels.csv").write_text(f"file_name,labels\n{name},a\n")
    bad = folder / "bad.jsonl"
    flags = ["--image_path", folder, "--check", "--num_workers", 0, "--bad_images", bad]

    def run() -> None:
        with open(folder / "said.txt", "w") as said, contextlib.redirect_stderr(said):
            sys.argv = ["data_loader.py", *map(str, flags)]
            with contextlib.redirect_stdout(said):
                run_script(data_loader.main, data_loader.get_args_parser())

    code, peak = in_child(run)
    return peak, outcome(code, bad, folder / "said.txt")


def in_child(work: Callable[[], None]) -> tuple[int, int]:
    """Call `work` in a copy of this process, which need not import torch again.

    Returns its exit code and its peak memory in bytes.
    """
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        except SystemExit as error:
            code = error.code
        finally:
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024


def outcome(code: int, bad: Path, said: Path) -> str:
    """What became of the picture. bad: the list of pictures that cannot be read."""
    if code not in (0, 2) or not bad.exists():
        return f"FAILED with exit code {code}: {said.read_text()[-200:]!r}"
    refused = bad.read_text()
    return "refused: " + refused.rpartition("image (")[2].partition(")")[0] if refused else "read"


def get_args_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(__doc__)
    about = "width and height of the pictures in pixels"
    parser.add_argument("--side", type=positive_int, default=SIDE, help=about)
    add_save_flag(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Write, check and measure each picture. Raises RunError if one takes too much."""
    too_much, base, rows = [], 0, []
    for what, name, write in [("", "tiny.png", saved("RGB", 0, 8)), *PICTURES]:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / name
            if in_child(lambda write=write, path=path: write(path, args.side))[0]:
                log(f"note: {what} cannot be written here")  # Pillow without this format
                continue
            pixels = 0
            with contextlib.suppress(ValueError), Image.open(path) as image:  # of long texts
                pixels = math.prod(image.size)
            size = path.stat().st_size
            peak, result = check(path.parent, name)
        base = base or peak
        if not what:
            continue
        more = max(peak - base, 0)
        each = f"{more / pixels:.1f}" if result == "read" and pixels > 1e7 else ""
        cells = what, f"{pixels / 1e6:,.1f}", f"{size / 1000:,.0f}", result, f"{more / 1e6:,.0f}"
        rows.append((*cells, each))
        log(*rows[-1], sep=", ")
        if more > MAX_BYTES + SLACK or result.startswith("FAILED"):
            too_much.append(what)
    columns = ("picture", "pixels, millions", "file, kB", "result", "memory, MB")
    print_table("memory", (*columns, "bytes for a pixel"), rows, args.save)
    if too_much:
        raise RunError(f"too much memory, or no clear end: {', '.join(too_much)}")


if __name__ == "__main__":
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
    except ImportError:
        log("note: HEIC is left out, as pillow-heif is not installed")
    Image.MAX_IMAGE_PIXELS = None  # of the writing here
    run_script(main, get_args_parser())
