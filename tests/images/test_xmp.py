"""Tags in XMP packets: what is added, and that nothing else changes."""

import os
from itertools import takewhile
from operator import eq
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from images.embedded_tags import embedded_tags
from images.xmp import EMPTY, add_tags, check_tag, has_hierarchy, read_tags
from util.errors import UsageError

RDF, DC = "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "http://purl.org/dc/elements/1.1/"
TAG = st.text(min_size=1, max_size=9).filter(lambda text: check_tag(text) is None)


def tags_in(data: bytes) -> list[str]:
    """By another reader: the tags of all descriptions, in order."""
    root = ElementTree.fromstring(data)
    rdf = root if root.tag == f"{{{RDF}}}RDF" else root.find(f"{{{RDF}}}RDF")
    path = f"{{{RDF}}}Description/{{{DC}}}subject/*/{{{RDF}}}li"
    return [text.strip() for li in rdf.findall(path) if (text := "".join(li.itertext())).strip()]


def num_replaced(old: bytes, new: bytes) -> int:
    """How many bytes of the old text are not around what was written into the new one."""
    before = len(list(takewhile(bool, map(eq, old, new))))
    after = len(list(takewhile(bool, map(eq, old[before:][::-1], new[before:][::-1]))))
    return len(old) - before - after


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Packets as many programs write them."""
    r = draw(st.sampled_from(("rdf:", "r:", "")))
    d, gap = draw(st.sampled_from(("dc", "d1"))), draw(st.sampled_from(("", "\n  ", "\r\n\t")))
    tags = draw(st.lists(st.sampled_from(("sea", "a &amp; b", "Größe", "<![CDATA[<x>]]>"))))
    kind = draw(st.sampled_from(("none", "empty", "bag", "seq", "empty list")))
    other = draw(
        st.sampled_from(
            (
                "",
                "<!-- <dc:subject/> -->",
                "<x:y xmlns:x='u'>></x:y>",
                f'<s xmlns="v" q="/>"><Description xmlns="{RDF}"/></s>',
            )
        )
    )
    name = "Seq" if kind == "seq" else "Bag"
    items = "".join(f"{gap}<{r}li>{tag}</{r}li>" for tag in tags)
    inner = {
        "none": "",
        "empty": f"<{d}:subject/>",
        "empty list": f"<{d}:subject><{r}{name}/></{d}:subject>",
    }.get(kind, f"<{d}:subject>{gap}<{r}{name}>{items}{gap}</{r}{name}>{gap}</{d}:subject>")
    about = f"<{r}Description xmlns:{d}='{DC}' {d}:x = \"1 &gt; 0 '/\""
    alone = kind == "none" and not other and draw(st.booleans())
    body = f"{about} />" if alone else f"{about}>{other}{inner}{gap}</{r}Description>"
    twice = draw(st.sampled_from(("", f"<{r}Description/>")))
    space = f'xmlns:{r[:-1]}="{RDF}"' if r else f'xmlns="{RDF}"'
    text = f"<{r}RDF {space}>{gap}{body}{gap}{twice}</{r}RDF>"
    if draw(st.booleans()):
        text = f"<x:xmpmeta xmlns:x='adobe:ns:meta/'>{text}</x:xmpmeta>"
    head = draw(st.sampled_from(("", "\ufeff", '<?xpacket begin="\ufeff" id="W5M0"?>')))
    foot = '<?xpacket end="w"?>' if "xpacket" in head else ""
    return f"{head}{text}{foot}".encode()


@given(packets(), st.lists(TAG, max_size=4))
def test_tags_are_added_and_nothing_else_changes(packet, tags):
    before = tags_in(packet)
    assert read_tags(packet) == before
    changed = add_tags(packet, tags)
    added = [tag for tag in tags_in(changed) if tag not in before]
    assert {*before, *(tag.strip() for tag in tags)} >= {*tags_in(changed)} >= {*before}
    folded = {tag.strip().casefold() for tag in tags_in(changed)}
    assert all(tag.strip().casefold() in folded or not tag.isascii() for tag in tags)
    assert num_replaced(packet, changed) <= len(" />")
    assert (changed == packet) == (not added)
    assert add_tags(changed, tags) == changed
    wide = b"\xff\xfe" + packet.decode().replace("\ufeff", "").encode("utf-16-le")
    assert read_tags(add_tags(wide, tags)) == read_tags(changed)


def test_layout_and_case():
    one = add_tags(EMPTY, ["a & b", "<c>"])
    assert (
        b"""   <dc:subject xmlns:dc="http://purl.org/dc/elements/1.1/">
    <rdf:Bag>
     <rdf:li>a &amp; b</rdf:li>
     <rdf:li>&lt;c&gt;</rdf:li>
    </rdf:Bag>
   </dc:subject>
  </rdf:Description>
"""
        in one
    )
    assert add_tags(one, ["A & B", "cafe\u0301"]) == add_tags(one, ["caf\u0065\u0301"])
    two = add_tags(one, ["é"])
    assert two == one.replace(
        b"&lt;c&gt;</rdf:li>", "&lt;c&gt;</rdf:li>\n     <rdf:li>é</rdf:li>".encode()
    )
    assert not has_hierarchy(two)
    lr = b'<lr:hierarchicalSubject xmlns:lr="l"/></rdf:Description>'
    assert has_hierarchy(two.replace(b"</rdf:Description>", lr))
    assert check_tag("a\x01b")
    assert check_tag("\ud800")
    assert check_tag(" ")
    assert check_tag("a\nb") is None


SUBJECT = f"<d:subject xmlns:d='{DC}'{{}}</d:subject>"


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "not XML"),
        (b"\0" * 99, "not XML"),
        (EMPTY[:-20], "not XML"),
        (EMPTY.replace(b"rdf:about", b"zzz:about"), "unbound prefix"),
        (b"\xff\xfe<", "damaged"),
        (b"<a/>", "no rdf:RDF"),
        (b"<a>" * 10**4 + b"</a>" * 10**4, "no rdf:RDF"),
        (EMPTY.replace(b"UTF-8", b"latin-1"), "latin-1"),
        (b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>', "DOCTYPE"),
        (b'<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><x>&b;</x>', "DOCTYPE"),
        (EMPTY.replace(b"/>", f" d:subject='x' xmlns:d='{DC}'/>".encode(), 1), "no list"),
        *(
            (
                EMPTY.replace(b"/>", f">{SUBJECT.format(inside)}</rdf:Description>".encode(), 1),
                "no list",
            )
            for inside in (
                ">cat",
                " rdf:resource='x'>",
                "><rdf:li>cat</rdf:li>",
                "><rdf:Bag>x</rdf:Bag>",
            )
        ),
    ],
)
def test_what_is_refused(packet, reason):
    with pytest.raises(ValueError, match=reason):
        add_tags(packet, ["new"])


def add_segment(path, number: int, content: bytes) -> None:
    """Put an APP segment at the start of a JPEG."""
    data = path.read_bytes()
    head = bytes([0xFF, 0xE0 + number]) + (len(content) + 2).to_bytes(2, "big")
    path.write_bytes(data[:2] + head + content + data[2:])


def test_tags_in_the_photo_itself(tmp_path):
    """XMP and IPTC keywords of JPEG, WebP and TIFF; a damaged packet is an error."""
    packet, start = add_tags(EMPTY, ["sea", "Größe"]), b"http://ns.adobe.com/xap/1.0/\0"
    picture = Image.new("RGB", (8, 8))
    for name in "abcd":
        picture.save(tmp_path / f"{name}.jpg")
    picture.save(tmp_path / "a.webp", xmp=packet)
    picture.save(tmp_path / "a.tif", tiffinfo={700: packet})
    add_segment(tmp_path / "a.jpg", 1, start + packet)
    for name in ("a.jpg", "a.webp", "a.tif"):
        assert embedded_tags(tmp_path / name) == ["sea", "Größe"]
    assert embedded_tags(tmp_path / "b.jpg") == []
    words = b"".join(b"\x1c\x02\x19\0" + bytes([len(w)]) + w for w in ("grün".encode(), b"M\xfcll"))
    block = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + len(words).to_bytes(4, "big") + words
    add_segment(tmp_path / "c.jpg", 13, block + b"\0" * (len(words) % 2))
    assert embedded_tags(tmp_path / "c.jpg") == ["grün", "Müll"]
    add_segment(tmp_path / "d.jpg", 1, start + packet[:-30])
    os.mkfifo(tmp_path / "e.jpg")
    for name in ("d.jpg", "e.jpg", "none.jpg"):
        with pytest.raises(UsageError, match=name):
            embedded_tags(tmp_path / name)
