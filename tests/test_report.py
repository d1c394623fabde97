"""The report as a browser would read it: complete in itself, nothing loaded, what users wrote shown and not run."""

from __future__ import annotations

import base64
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from disk import small_disk

from geomatch.errors import InputError, OutputError, UsageError
from geomatch.report import ReportPicture, ReportTable, write_report

PNG = cv2.imencode(".png", np.full((4, 6, 3), 128, np.uint8))[1].tobytes()
TABLE = ReportTable(
    "Answers", ("strip", "error, m", "truth"), [("a.tif", 8.31234, None), ("b.tif", None, "34.1")], caption="n = 2"
)
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Tags with their attributes, cells of tables, and texts; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[tuple[str, str | None, str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append((tag, dict(attrs)["class"], ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            tag, kind, text = self.cells[-1]
            self.cells[-1] = (tag, kind, text + data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(file: Path) -> Page:
    return Page(file.read_text(encoding="utf-8"))


def test_a_table_is_shown_with_its_numbers_aligned(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", "Demo", "What was done.", [TABLE])
    page = page_of(tmp_path / "r.html")
    assert page.cells == [
        ("th", "text", "strip"),
        ("th", "number", "error, m"),
        ("th", "text", "truth"),
        ("td", "text", "a.tif"),
        ("td", "number", "8.312"),
        ("td", "text", "–"),
        ("td", "text", "b.tif"),
        ("td", "number", "–"),
        ("td", "text", "34.1"),
    ]
    assert all(attributes["scope"] == "col" for attributes in page.all("th"))


def test_pictures_are_inside_the_file_and_described(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    pictures = [
        ReportPicture("From a file", "Caption", tmp_path / "a.png", "a grey picture", wide=True),
        ReportPicture("From memory", "Caption", PNG, 'another "grey" picture'),
    ]
    write_report(tmp_path / "r.html", "Demo", "", pictures)
    images = page_of(tmp_path / "r.html").all("img")
    assert [image["alt"] for image in images] == ["a grey picture", 'another "grey" picture']
    for image in images:
        source = image["src"]
        assert source is not None
        head, content = source.split(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(content, validate=True) == PNG


def test_nothing_is_loaded_and_nothing_runs(tmp_path: Path) -> None:
    hostile = "</td><script>alert(1)</script><img src=http://example.com/x>"
    table = ReportTable(hostile, (hostile,), [(hostile,)], caption=hostile)
    picture = ReportPicture(hostile, hostile, PNG, f'" onerror="alert(1) {hostile}')
    write_report(tmp_path / "r.html", hostile, hostile, [table, picture])
    page = page_of(tmp_path / "r.html")
    assert not {"script", "link", "iframe", "object", "a", "base"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") or name in ("href", "action") for name in attributes), tag
    assert len(page.all("img")) == 1
    assert page.cells[1][2] == hostile
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert page.all("html")[0]["lang"] == "en"


def test_an_empty_report_and_an_empty_table_are_pages_too(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", "Demo", "", [])
    write_report(tmp_path / "r.html", "Demo", "", [ReportTable("None", ("strip",), [])])
    assert page_of(tmp_path / "r.html").cells == [("th", "text", "strip")]


def test_a_row_must_fill_its_columns() -> None:
    with pytest.raises(ValueError, match="1 cells under 2 columns"):
        ReportTable("T", ("a", "b"), [(1, 2), (3,)])


@pytest.mark.parametrize("content", [None, b"", b"GIF89a"])
def test_a_picture_that_is_none_leaves_no_report(tmp_path: Path, content: bytes | None) -> None:
    picture = tmp_path / "a.png"
    if content is not None:
        picture.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.png: the picture"):
        write_report(tmp_path / "r.html", "Demo", "", [ReportPicture("P", "", picture, "")])
    assert not (tmp_path / "r.html").exists()


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        write_report(tmp_path / "nowhere" / "r.html", "Demo", "", [TABLE])


def test_what_was_there_survives_a_full_disk(tmp_path: Path) -> None:
    file = tmp_path / "r.html"
    file.write_text("the old")
    with small_disk(1000), pytest.raises(OutputError):
        write_report(file, "Demo", "", [TABLE])
    assert file.read_text() == "the old"
    assert list(tmp_path.iterdir()) == [file]


def test_missing_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UsageError, match=r"jinja2.*pip install 'geomatch\[report\]'"):
        write_report(tmp_path / "r.html", "Demo", "", [TABLE])
