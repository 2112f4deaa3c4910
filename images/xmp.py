"""XMP: the tags (dc:subject) of a photo, read from a packet and added to one.

XMP is RDF in XML (ISO 16684-1). A tag is added by writing its few bytes into the text, so
everything else stays as it is to the byte: other properties, comments, prefixes, spaces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape

from util.names import key

RDF, DC = "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "http://purl.org/dc/elements/1.1/"
SUBJECT, DESCRIPTION = f"{DC} subject", f"{RDF} Description"
LISTS = (f"{RDF} Bag", f"{RDF} Seq", f"{RDF} Alt")
LIST_ITEM = f"{RDF} li"
HIERARCHICAL = ("hierarchicalSubject", "TagsList")  # of Lightroom and digiKam
ROOTS = (["adobe:ns:meta/ xmpmeta"], ["adobe:ns:meta/ xapmeta"])  # around rdf:RDF
START_TAG = re.compile(rb"<([^\s/>]+)(?:[^>\"']|\"[^\"]*\"|'[^']*')*>")
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
UTF8 = ("utf-8", "utf8", "us-ascii", "ascii")
UTF16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be", b"<\0": "utf-16-le"}
UTF16 |= {b"\0<": "utf-16-be"}
LONGEST_INDENT = 200  # bytes
EMPTY = f"""<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="HybridNet sample.py">
 <rdf:RDF xmlns:rdf="{RDF}">
  <rdf:Description rdf:about=""/>
 </rdf:RDF>
</x:xmpmeta>
""".encode()


@dataclass(eq=False)
class Element:
    """Where an element is in the text, in bytes."""

    name: str
    start: int  # of its start tag
    inside: int  # the end of its start tag
    qname: bytes  # its name as written
    attributes: dict[str, str]
    is_empty: bool  # <a/>
    close: int = -1  # where its end tag begins
    words: list[str] = field(default_factory=list)  # the text in it

    @property
    def prefix(self) -> bytes:
        """What its name begins with: rdf: or nothing."""
        return b"".join(self.qname.rpartition(b":")[:2])


@dataclass
class Packet:
    """What is in an XMP packet. tags: of all lists, as written, in order."""

    rdf: Element | None = None
    level: int = 0  # how many elements are around rdf
    descriptions: list[Element] = field(default_factory=list)
    subjects: list[Element] = field(default_factory=list)
    lists: list[Element] = field(default_factory=list)
    items: list[Element] = field(default_factory=list)
    has_hierarchy: bool = False

    @property
    def tags(self) -> list[str]:
        """The tags, without spaces around them."""
        return [text for item in self.items if (text := "".join(item.words).strip())]


def read_tags(data: bytes) -> list[str]:
    """The tags in an XMP packet. Raises ValueError, with a reason, for what is not one."""
    return scan(_to_utf8(data)[0]).tags


def add_tags(data: bytes, tags: Iterable[str]) -> bytes:
    """The packet with these tags added; the same bytes if it has them all.

    A tag that differs only in case, or in how accents are written, is there already. Raises
    ValueError, with a reason, for a packet that cannot be read or whose tags are no list.
    """
    text, coding = _to_utf8(data)
    packet = scan(text)
    there = {key(tag) for tag in packet.tags}
    new = {}
    for tag in tags:
        if (folded := key(tag.strip())) not in there:
            new.setdefault(folded, tag)
    new = list(new.values())
    if not new:
        return data
    changed = _insert(text, packet, new)
    if scan(changed).tags != _expected(packet, new):
        raise ValueError("it is too unusual to add tags to it")
    return changed if coding == "utf-8" else changed.decode().encode(coding)


def has_hierarchy(data: bytes) -> bool:
    """Whether a packet that `add_tags` took also has tags in a hierarchy."""
    return scan(_to_utf8(data)[0]).has_hierarchy


def check_tag(tag: str) -> str | None:
    """Why XML cannot hold this text as a tag; None if it can."""
    if found := NOT_XML.search(tag):
        return f"XML has no character {found[0]!r}"
    return None if tag.strip() else "it has no letters"


def scan(text: bytes) -> Packet:
    """Find the tags in a packet in UTF-8. Raises ValueError with a reason."""
    packet, stack = Packet(), list[Element]()
    parser = expat.ParserCreate("UTF-8", " ")

    def start(name: str, attributes: dict[str, str]) -> None:
        at = parser.CurrentByteIndex
        tag = START_TAG.match(text, at)
        element = Element(name, at, tag.end(), tag[1], attributes, tag[0].endswith(b"/>"))
        _note(packet, stack, element)
        stack.append(element)

    def end(name: str) -> None:
        element = stack.pop()
        element.close = element.inside if element.is_empty else parser.CurrentByteIndex

    def words(found: str) -> None:
        if stack:
            stack[-1].words.append(found)
            if stack[-1].name == f"{RDF} value" and stack[-2:-1] == packet.items[-1:]:
                stack[-2].words.append(found)  # a tag with qualifiers

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = words
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.XmlDeclHandler = _check_coding
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise ValueError(f"it is not XML: {error}") from None
    if not packet.rdf:
        raise ValueError("it is not XMP: it has no rdf:RDF")
    return packet


def _note(packet: Packet, stack: Sequence[Element], element: Element) -> None:
    """Keep an element that matters. stack: the elements around it."""
    if packet.rdf is None:
        if element.name == f"{RDF} RDF" and (not stack or [e.name for e in stack] in ROOTS):
            packet.rdf, packet.level = element, len(stack)
        return
    if packet.rdf.close >= 0 or len(stack) - packet.level > 4:
        return
    path = [outer.name for outer in stack[packet.level + 1 :]]
    if not path and element.name == DESCRIPTION:
        packet.descriptions.append(element)
        if SUBJECT in element.attributes:
            raise ValueError("its dc:subject is no list")
    elif path == [DESCRIPTION]:
        packet.has_hierarchy |= element.name.rpartition(" ")[2] in HIERARCHICAL
        if element.name == SUBJECT:
            packet.subjects.append(element)
    elif path == [DESCRIPTION, SUBJECT]:
        packet.lists.append(element)
    elif path[:2] == [DESCRIPTION, SUBJECT] and len(path) == 3 and element.name == LIST_ITEM:
        packet.items.append(element)


def _insert(text: bytes, packet: Packet, tags: list[str]) -> bytes:
    """Write the tags into the text: into the list if there is one, else with a new one."""
    for subject in packet.subjects:
        if subject.attributes or "".join(subject.words).strip():
            raise ValueError("its dc:subject is no list")
    if any(each.name not in LISTS or "".join(each.words).strip() for each in packet.lists):
        raise ValueError("its dc:subject is no list")
    if packet.lists:
        target = packet.lists[0]
        inside = [item for item in packet.items if target.inside <= item.start < target.close]
        items = _items(tags, target.prefix)
        if not inside:
            return _put(text, target, b"".join(items))
        space = _space_before(text, inside[-1].start)
        at = _end(text, inside[-1])
        return text[:at] + b"".join(space + item for item in items) + text[at:]
    if packet.subjects:
        target = packet.subjects[0]
        around = [each for each in packet.descriptions if each.start < target.start][-1]
        return _put(text, target, _bag(tags, around.prefix))
    if packet.descriptions:
        target = packet.descriptions[0]
        space = _space_before(text, target.start)
        return _put(text, target, _subject(tags, target.prefix, space), space)
    space = _space_before(text, packet.rdf.start)
    start = f'<rdf:Description xmlns:rdf="{RDF}" rdf:about="">'.encode()
    subject = _subject(tags, b"rdf:", space and space + b" ")
    inner = (space and space + b" ") + start + subject + (space and space + b" ")
    return _put(text, packet.rdf, inner + b"</rdf:Description>", space)


def _put(text: bytes, element: Element, content: bytes, space: bytes = b"") -> bytes:
    """Write content at the end of an element; space: before the end tag of one that was empty."""
    if element.is_empty:
        before = text[: element.inside - 2].rstrip()
        end = b"</" + element.qname + b">"
        return before + b">" + content + space + end + text[element.inside :]
    at = element.close - len(_space_before(text, element.close))
    return text[:at] + content + text[at:]


def _items(tags: list[str], prefix: bytes) -> list[bytes]:
    texts = (escape(tag, {"\r": "&#13;"}).encode() for tag in tags)
    return [b"<%bli>%b</%bli>" % (prefix, text, prefix) for text in texts]


def _bag(tags: list[str], prefix: bytes, space: bytes = b"") -> bytes:
    inner = b"".join((space and space + b" ") + item for item in _items(tags, prefix))
    return b"%b<%bBag>%b%b</%bBag>" % (space, prefix, inner, space, prefix)


def _subject(tags: list[str], prefix: bytes, space: bytes) -> bytes:
    """A new dc:subject. space: before the element that it will be in."""
    own = space and space + b" "
    bag = _bag(tags, prefix, own and own + b" ")
    return b'%b<dc:subject xmlns:dc="%b">%b%b</dc:subject>' % (own, DC.encode(), bag, own)


def _end(text: bytes, element: Element) -> int:
    """Where an element ends, after its end tag."""
    return element.inside if element.is_empty else text.index(b">", element.close) + 1


def _space_before(text: bytes, at: int) -> bytes:
    """The spaces that end at this byte, with the line break before them but no empty line."""
    before = text[max(0, at - LONGEST_INDENT) : at]
    space = before[len(before.rstrip()) :]
    last = space.rfind(b"\n")
    return space[last - space[:last].endswith(b"\r") :] if last > 0 else space


def _expected(packet: Packet, new: list[str]) -> list[str]:
    """The tags once the new ones are in the first list."""
    if not packet.lists:
        return [tag.strip() for tag in new]
    first = packet.lists[0]
    old = [(item, text) for item in packet.items if (text := "".join(item.words).strip())]
    own = [text for item, text in old if item.start < first.close]
    return own + [tag.strip() for tag in new] + [t for item, t in old if item.start > first.close]


def _to_utf8(data: bytes) -> tuple[bytes, str]:
    """The packet in UTF-8, and its own encoding. Raises ValueError."""
    coding = UTF16.get(data[:2], "utf-8")
    try:
        return (data, coding) if coding == "utf-8" else (data.decode(coding).encode(), coding)
    except UnicodeError:
        raise ValueError("it is damaged: it begins as UTF-16, and is not") from None


def _refuse_doctype(*_: object) -> None:
    raise ValueError("it has a DOCTYPE, which XMP never has")


def _check_coding(version: str, coding: str | None, standalone: int) -> None:
    if coding and coding.lower() not in UTF8 and not coding.lower().startswith("utf-16"):
        raise ValueError(f"it is written in {coding}, not in UTF-8")
