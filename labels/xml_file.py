"""XML files of labelling tools, read without DTDs: they could expand to any size."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException, ElementTree

from labels.text import BOMS_UTF16, read_head
from util.errors import UsageError
from util.reading import open_file

SKIPPED = {"<?": "?>", "<!--": "-->", "<!DOCTYPE": ">"}  # before the first element
NAME = re.compile(r"<([\w.:-]+)")


def head_of(path: Path) -> str:
    """The first characters of an XML file; empty if it cannot be read or is another file."""
    try:
        head, text = read_head(path)
    except OSError:
        return ""
    if head.startswith(BOMS_UTF16):
        text = head.decode("utf-16", "replace").lstrip()
    return text if text.startswith("<") else ""


def root_tag(text: str) -> str:
    """The name of the first element in a head; empty if there is none."""
    while start := next((s for s in SKIPPED if text.startswith(s)), None):
        end = SKIPPED[start]
        if start == "<!DOCTYPE" and "[" in text.partition(">")[0]:
            end = "]>"
        text = text.partition(end)[2].lstrip()
    found = NAME.match(text)
    return found[1] if found else ""


def parse(path: Path, root: str, tool: str) -> Element:
    """The root element. Raises UsageError if there is another root, a DOCTYPE or no XML."""
    try:
        with open_file(path) as file:
            element = ElementTree.parse(file, forbid_dtd=True).getroot()
    except DefusedXmlException:
        raise UsageError(
            f"{path} has a DOCTYPE, which {tool} files never have: delete it"
        ) from None
    except (ParseError, ValueError, LookupError) as error:
        raise UsageError(f"{path} is not XML ({error})") from None
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror})") from None
    if element.tag != root:
        raise UsageError(f"{path} begins with <{element.tag}>: a {tool} file begins with <{root}>")
    return element
