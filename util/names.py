"""File names as people write them, and what each may mean.

/home/me/photos/a.jpg   ../input/set/a.jpg   C:\\photos\\a.jpg   https://host/a%20b.jpg?size=2
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

HASHED = re.compile(r"[0-9a-f]{8}-(.+)")  # Label Studio's prefix of uploaded files
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def key(text: str) -> str:
    """The same text for names that differ in case or in how Unicode writes accents.

    >>> key("CAFE\\u0301.jpg") == key("caf\\u00e9.JPG")
    True
    """
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def stem(name: str) -> str:
    """A file name without its suffix.

    >>> stem("photo.v2.jpg")
    'photo.v2'
    """
    return name.rpartition(".")[0] or name


def parts_of(text: str) -> tuple[str, ...]:
    """Folders and file name. A .. cancels the folder before it, and never leads out.

    >>> parts_of("..\\\\input/./x/../a.jpg")
    ('input', 'a.jpg')
    """
    parts: list[str] = []
    for part in text.replace("\\", "/").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return tuple(parts)


def readings(name: str) -> Iterator[tuple[str, ...]]:
    """The folders and file name that a name may mean, the most literal first.

    Without a scheme (https://); without what follows ? or with only its values; with %20 as a
    space; without the prefix that Label Studio puts before names.

    >>> list(readings("x/my%20cat.jpg?size=2"))[-2:]
    [('x', 'my cat.jpg?size=2'), ('x', 'my cat.jpg')]
    """
    if first := parts_of(name):
        yield first
    texts = [name]
    if found := SCHEME.match(name):
        texts.append(name[found.end() :].partition("#")[0])
    before, mark, query = texts[-1].partition("?")
    if mark:
        texts += [before, *(each.partition("=")[2] for each in query.split("&"))]
    texts += [unquote(text) for text in texts if "%" in text]
    all_parts = [parts for text in dict.fromkeys(texts) if (parts := parts_of(text))]
    for parts in all_parts:
        if parts != first:
            yield parts
    for *folders, last in all_parts:
        if found := HASHED.fullmatch(last):
            yield (*folders, found[1])
