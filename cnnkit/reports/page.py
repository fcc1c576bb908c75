"""The page of a report: its head, its style and its sections."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cnnkit._html.elements import Content, element, to_html
from cnnkit._version import __version__

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 0 auto;
  padding: 0 1rem 3rem; }
nav { position: sticky; top: 0; background: #fff; border-bottom: 1px solid #ccc; padding: .5rem 0;
  z-index: 1; }
nav a { margin-right: 1rem; }
a { color: #0b5cad; }
h1 { margin: 1rem 0 0; overflow-wrap: anywhere; }
h2 { border-bottom: 1px solid #ddd; margin-top: 2.5rem; }
section, article, tr { scroll-margin-top: 3.5rem; }
table { border-collapse: collapse; margin: .7rem 0; }
th, td { padding: .15rem .6rem; border-bottom: 1px solid #eee; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; font-weight: normal; }
thead th { border-bottom: 1px solid #999; }
tbody th { color: #555; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; }
.wide { overflow-x: auto; }
.matrix { font-size: .8rem; }
.matrix td { text-align: center; min-width: 1.6rem; padding: .1rem .2rem; border: 1px solid #fff; }
.matrix thead th { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left;
  max-height: 10rem; border: 0; }
.matrix tbody th { text-align: right; white-space: nowrap; }
.matrix a { color: inherit; font-weight: bold; }
.s0 { background: #f7fbff; color: #999; } .s1 { background: #e3eef9; } .s2 { background: #d0e1f2; }
.s3 { background: #b7d4ea; } .s4 { background: #94c4df; } .s5 { background: #6aaed6; }
.s6 { background: #4a98c9; color: #fff; } .s7 { background: #2e7ebc; color: #fff; }
.s8 { background: #1764ab; color: #fff; } .s9 { background: #08306b; color: #fff; }
img.figure { max-width: 100%; height: auto; }
figure { display: inline-block; margin: 0 .8rem .6rem 0; vertical-align: top; }
figure img { display: block; width: 12rem; height: auto; }
img.pixels { image-rendering: pixelated; }
figcaption, small { color: #555; font-size: .85rem; }
article { border-top: 1px solid #ddd; padding: .6rem 0; }
article h3 { margin: .2rem 0; font-size: 1rem; overflow-wrap: anywhere; }
article:target { background: #fffbe6; }
meter { width: 7rem; }
pre { background: #f5f5f5; padding: .6rem; white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; color: #0b5cad; }
@media print { nav { display: none; } details::details-content { content-visibility: visible; } }
"""


@dataclass(frozen=True)
class Section:
    """A section of a report.

    Attributes:
        name: Name of its anchor.
        title: Its heading.
        content: What stands below.
    """

    name: str
    title: str
    content: Sequence[Content]


def render_page(title: str, lead: Sequence[Content], sections: Sequence[Section]) -> str:
    """Return a page that loads nothing: no script runs, and all images are inside it.

    Args:
        title: Its title.
        lead: What stands below the title.
        sections: Its sections, in order.
    """
    nav = element("nav", *(element("a", one.title, href=f"#{one.name}") for one in sections))
    body = element(
        "body",
        nav,
        element("h1", title),
        *lead,
        *(
            element("section", element("h2", one.title), *one.content, id=one.name)
            for one in sections
        ),
        element("footer", element("small", f"Written by cnnkit {__version__}.")),
    )
    return "<!DOCTYPE html>\n" + to_html(element("html", _head(title), body, lang="en")) + "\n"


def _head(title: str) -> Content:
    style = element("style")
    style.text = STYLE  # Its lines are kept.
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none';"
        " form-action 'none'"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        style,
    )
