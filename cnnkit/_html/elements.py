"""Elements of HTML. Texts of files are escaped when a tree becomes HTML, wherever they stand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from cnnkit.errors import escape_controls, truncate

# Characters of one text, at most: a longer name would hide the rest of a page.
MAX_TEXT = 1000
Content = Element | str


class DataUrl(str):
    """The content of a file as a URL, which is made by this package and is not shortened."""


def element(tag: str, *content: Content, **attributes: object) -> Element:
    """Return an element with texts and elements inside.

    Args:
        tag: Name of the element.
        *content: Texts and elements, in order. Texts become one line each, and long ones are
            shortened.
        **attributes: Attributes; `_` stands for `-`, and at the end for nothing, as in `class_`.

    Example:
        >>> to_html(element("td", "cat & <b>dog</b>", class_="name"))
        '<td class="name">cat &amp; &lt;b&gt;dog&lt;/b&gt;</td>'
    """
    made = Element(tag)
    for name, value in attributes.items():
        text = value if isinstance(value, DataUrl) else _one_line(str(value))
        made.set(name.rstrip("_").replace("_", "-"), text)
    for one in content:
        if not isinstance(one, str):
            made.append(one)
            continue
        text = _one_line(one)
        if len(made):
            made[-1].tail = (made[-1].tail or "") + text
        else:
            made.text = (made.text or "") + text
    return made


def _one_line(text: str) -> str:
    return escape_controls(truncate(text, MAX_TEXT))


def to_html(*elements: Element) -> str:
    """Return elements as HTML, one after the other."""
    return "".join(ElementTree.tostring(one, encoding="unicode", method="html") for one in elements)


def html_table(
    rows: Iterable[Sequence[Content]], header: Sequence[str] = (), **attributes: object
) -> Element:
    """Return a table.

    Args:
        rows: Cells of each row; the first one heads the row.
        header: Cells of the row above, if any.
        **attributes: Attributes of the table.
    """
    head = [element("thead", element("tr", *(element("th", one) for one in header)))]
    body = (
        element("tr", element("th", first), *(element("td", one) for one in rest))
        for first, *rest in rows
    )
    return element("table", *(head if header else ()), element("tbody", *body), **attributes)


def folded(title: str, *content: Content) -> Element:
    """Return content that a click on its title unfolds."""
    return element("details", element("summary", title), *content)


def image(url: DataUrl, description: str, **attributes: object) -> Element:
    """Return an image.

    Args:
        url: A data URL, made by this package.
        description: The text in its place, for those who do not see it.
        **attributes: Further attributes.
    """
    return element("img", src=url, alt=description, **attributes)


def line_chart(
    lines: Sequence[Sequence[float | None]], width: int = 260, height: int = 80
) -> Element:
    """Return a small chart of lines from 0 to their largest value, without axes.

    Args:
        lines: Values of each line, in equal steps; None leaves a gap. The first line is dashed.
        width: Width in pixels.
        height: Height in pixels.
    """
    largest = max((value for line in lines for value in line if value is not None), default=0) or 1
    drawn = []
    for number, line in enumerate(lines):
        points = [
            None
            if value is None
            else (width * i / max(len(line) - 1, 1), height * (1 - value / largest))
            for i, value in enumerate(line)
        ]
        path = "".join(
            f"M{x:.1f} {y:.1f}L{u:.1f} {v:.1f}"
            for before, after in pairwise(points)
            if before is not None and after is not None
            for (x, y), (u, v) in [(before, after)]
        )
        style = {"fill": "none", "stroke": "#1f77b4", "stroke_width": 1.5}
        if number == 0:
            style["stroke_dasharray"] = "4 3"
        drawn.append(element("path", d=DataUrl(path), **style))
    box = f"-2 -2 {width + 4} {height + 4}"
    return element("svg", *drawn, width=width, height=height, viewBox=box)
