"""Bars, tables, and the values of options."""

import argparse
import io
import sys

import pytest

from cnnkit.cli.console import (
    check_png,
    parse_integers,
    print_json,
    progress_bar,
    read_labels,
    table,
)
from cnnkit.errors import UsageError


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_is_shown_on_a_terminal_only(monkeypatch, capsys):
    with progress_bar(4, "images") as progress:
        progress(2)
    assert capsys.readouterr() == ("", "")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar(4, "reading") as progress:
        progress(3)
        progress()
    assert "reading" in terminal.getvalue()


def test_images_of_an_earlier_process_do_not_count_for_the_speed(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar(1000, resumed=True) as progress:
        progress(900)
        assert "900/1000" in terminal.getvalue()
        # 900 images in no time would be thousands in a second.
        assert "images/s" not in terminal.getvalue().replace("? images/s", "")


def test_a_table_aligns_numbers_right():
    rows = [{"name": "a", "parameters": 1200}, {"name": "bcd", "parameters": None}]
    assert table(rows).splitlines() == ["name  parameters", "a          1,200", "bcd            -"]


def test_json_is_one_line_unless_indented(capsys):
    print_json({"a": [1]})
    print_json({"a": 1}, indent=2)
    assert capsys.readouterr().out == '{"a": [1]}\n{\n  "a": 1\n}\n'


def test_a_figure_is_a_png_in_an_existing_folder(tmp_path):
    assert check_png(str(tmp_path / "x.PNG")) == tmp_path / "x.PNG"
    with pytest.raises(UsageError, match=r"--figure must be a PNG file. Expected: --figure NAME"):
        check_png("x.jpg", "--figure")
    with pytest.raises(UsageError, match=r"--output must be in an existing folder"):
        check_png(tmp_path / "none" / "x.png")


def test_labels_are_lines(tmp_path):
    (tmp_path / "labels").write_text("ant\nhoney bee\n")
    assert read_labels(tmp_path / "labels") == ("ant", "honey bee")
    (tmp_path / "labels").write_bytes("\ufeffant \r\nhoney bee\r\n\r\n  ".encode())
    assert read_labels(tmp_path / "labels") == ("ant", "honey bee")
    (tmp_path / "labels").write_bytes("ant\nbee\n".encode("utf-16"))
    assert read_labels(tmp_path / "labels") == ("ant", "bee")
    for text, line in (("ant\n\nbee\n", 2), ("\n\n", 1)):
        (tmp_path / "labels").write_text(text)
        with pytest.raises(UsageError, match=f"--labels must hold .* blank in line {line}"):
            read_labels(tmp_path / "labels")
    with pytest.raises(UsageError, match="--labels must be an existing file"):
        read_labels(tmp_path / "none")


def test_integers_have_commas_between_them():
    assert parse_integers("256,384") == (256, 384)
    for text in ("", "256,", "a", "1.5"):
        with pytest.raises(argparse.ArgumentTypeError, match="whole numbers with commas"):
            parse_integers(text)
