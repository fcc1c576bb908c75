"""HTML of elements: foreign texts are texts, wherever they stand."""

from html.parser import HTMLParser

import pytest

from cnnkit._html.elements import DataUrl, element, folded, html_table, image, line_chart, to_html

FOREIGN = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "&lt;b&gt;",
    "</style></title><b>",
    "cat\x1b[2J\u202e\ud800",
)


class Tags(HTMLParser):
    """The tags, attributes and texts of HTML, as a browser reads them."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


def read(html):
    tags = Tags()
    tags.feed(html)
    tags.close()
    return tags


@pytest.mark.parametrize("text", FOREIGN)
def test_a_foreign_text_is_a_text(text):
    made = [
        element("p", text, element("b", text), text, class_=text),
        html_table([(text, text)], (text,)),
        folded(text, text),
        image(DataUrl("data:,"), text, title=text),
    ]
    html = to_html(*made)
    found = read(html)
    assert found.tags == [
        *("p", "b", "table", "thead", "tr", "th", "tbody", "tr", "th", "td"),
        *("details", "summary", "img"),
    ]
    assert {name for name, _ in found.attributes} == {"class", "src", "alt", "title"}
    shown = text if text.isprintable() else r"cat\x1b[2J\u202e\ud800"
    assert {value for _, value in found.attributes} == {shown, "data:,"}
    assert "".join(found.texts).replace(shown, "") == ""
    assert html.encode()


def test_a_long_text_is_shortened_and_an_image_is_not():
    assert len(to_html(element("p", "a" * 10**6, class_="b" * 10**6))) < 2200
    assert len(to_html(image(DataUrl("data:," + "a" * 5000), ""))) > 5000


def test_texts_stand_between_elements_in_order():
    html = to_html(element("p", "a", "b", element("br"), "c", "d", element("i", "e"), "f"))
    assert html == "<p>ab<br>cd<i>e</i>f</p>"


def test_a_chart_has_its_largest_value_on_top_and_gaps():
    chart = line_chart([[0, 1], [4, None, 2, 1]], width=30, height=8)
    assert [path.get("d") for path in chart] == ["M0.0 8.0L30.0 6.0", "M20.0 4.0L30.0 6.0"]
    assert [path.get("stroke-dasharray") for path in chart] == ["4 3", None]
    assert line_chart([[], [None]])[0].get("d") == ""
