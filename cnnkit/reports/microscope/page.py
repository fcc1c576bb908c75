"""The frame of every page of a site: its head, the search, and the links above."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from cnnkit._html.elements import Content, DataUrl, element, image, to_html
from cnnkit._version import __version__
from cnnkit.reports.microscope.site_folder import write_quickly

# The browser loads nothing from outside of the folder, whatever names of files and classes hold.
POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; base-uri 'none';"
    " form-action 'none'"
)
STATIC = ("site.css", "site.js")


def write_static_files(site: Path) -> None:
    """Write the style and the script of a site."""
    for name in STATIC:
        write_quickly(site / name, (files(__package__) / name).read_bytes())


def render(title: str, path: Sequence[Content], *content: Content, depth: int) -> str:
    """Return a page.

    Args:
        title: Its title, which is its heading too.
        path: Links to the pages above it.
        *content: What stands below the heading.
        depth: Folders between the site and the page.
    """
    root = "../" * depth
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("link", rel="stylesheet", href=f"{root}site.css"),
        element("script", src=f"{root}site.js", defer="defer"),
    )
    trail: list[Content] = []
    for one in path:
        trail += [one, " / "]
    search = element(
        "input", type="search", id="search", placeholder="search layers, units, classes",
        aria_label="search layers, units and classes", autocomplete="off",
    )  # fmt: skip
    body = element(
        "body",
        element("header", element("nav", *trail, title, aria_label="where"), search),
        element("section", id="results", hidden="hidden", aria_live="polite"),
        element("main", element("h1", title), *content),
        element("footer", element("small", f"Written by cnnkit {__version__}.")),
        data_root=root,
    )
    return "<!DOCTYPE html>\n" + to_html(element("html", head, body, lang="en")) + "\n"


def picture(address: str, description: str, class_: str) -> Content:
    """Return a picture of the site that is loaded when it comes into view.

    Args:
        address: Its address, relative to the page.
        description: What it shows, in words.
        class_: Its classes in the style.
    """
    pixels = " pixels" if address.endswith(".png") else ""
    return image(DataUrl(address), description, class_=class_ + pixels, loading="lazy")


def plural(count: int, word: str) -> str:
    """Return a number and a word for it.

    Example:
        >>> plural(1, "image"), plural(2000, "image")
        ('1 image', '2,000 images')
    """
    return f"{count:,} {word}" + ("" if count == 1 else "s")
