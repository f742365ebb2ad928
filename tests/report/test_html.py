from __future__ import annotations

import dataclasses
from html.parser import HTMLParser

from reap_onnx.report.html import Markup, element, render, width_bars
from reap_onnx.report.summary import Summary

VOID = {"meta"}


class Reader(HTMLParser):
    """Text, tags and attributes of a page; fails where tags do not pair."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_everything_from_the_model_is_escaped(summary: Summary) -> None:
    page = render(summary)
    assert "&lt;b&gt;&amp;[red]" in page
    assert "<b>" not in page
    reader = Reader(page)
    assert "script" not in reader.tags
    assert "'<script>' was taken as a name" in reader.texts
    assert "node 'odd' (<LSTM>) has no rule" in reader.texts


def test_builder_escapes_text_and_attributes_but_not_markup() -> None:
    built = element("p", {"title": '"<&'}, "<i>", Markup("<br>"))
    assert built == Markup('<p title="&quot;&lt;&amp;">&lt;i&gt;<br></p>')


def test_works_offline(summary: Summary) -> None:
    page = render(summary)
    reader = Reader(page)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in reader.attributes
    assert not {name for name, _ in reader.attributes} & {"src", "href"}
    assert "http" not in page.replace("http-equiv", "")
    assert not {"script", "link", "img", "iframe"} & set(reader.tags)


def test_tells_what_the_console_tells(summary: Summary) -> None:
    texts = Reader(render(summary)).texts
    for expected in ("40.8 M", "20.4 M", "2.00 ms", "95.2 %", "-5.6 points", "Groups left alone: 1", "0.1235"):
        assert expected in texts
    assert any("MACs of Conv, ConvTranspose, Gemm and MatMul at batch 1" in text for text in texts)
    assert any("polygraphy run net-pruned.onnx" in text for text in texts)
    assert any("half of the MACs" in text for text in texts)


def test_bars_show_both_widths_on_one_scale(summary: Summary) -> None:
    reader = Reader(width_bars(summary.groups).text)
    assert [float(value or 0) for name, value in reader.attributes if name == "width"][1:] == [480, 240, 120, 120]
    assert "64 -> 32" in reader.texts
    assert "16 -> 16" in reader.texts
    assert "24 -> 24" not in reader.texts


def test_long_labels_keep_their_end(summary: Summary) -> None:
    group = dataclasses.replace(summary.groups[0], name="x" * 50 + "/conv")
    (label, _) = Reader(width_bars((group,)).text).texts
    assert len(label) == 38
    assert label.startswith("...")
    assert label.endswith("x/conv")


def test_a_page_without_groups_or_comparison(summary: Summary) -> None:
    bare = dataclasses.replace(summary, groups=(), comparison=None, seconds={}, notes=(), output="")
    reader = Reader(render(bare))
    assert "not measured" in reader.texts
    assert "Groups: 0 of 0 pruned" in reader.texts
    assert "svg" not in reader.tags
