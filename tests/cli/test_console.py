"""Bars, tables, and the values of options."""

import ast
import errno
import io
import json
import logging
import re
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from cnnkit.cli.console import (
    Detail,
    LogFormatter,
    cell,
    print_detail,
    print_error,
    print_json,
    print_left_out,
    print_line,
    print_note,
    print_table,
    progress_bar,
    read_labels,
    set_detail,
    table,
)
from cnnkit.cli.main import main
from cnnkit.errors import AssumptionWarning, UsageError

PACKAGE = Path(__file__).resolve().parents[2] / "cnnkit"
# An escape sequence, a line of its own, two directions, a space of no width, a blank letter.
HOSTILE = "cat\x1b[2K\rdone: no error\n\u202egpj.\u2066\u200b\u3164"
ESCAPED = r"cat\x1b[2K\rdone: no error\n\u202egpj.\u2066\u200b\u3164"
# What prints or warns itself: each with the reason.
OUTPUTS = {
    "cli/console.py": {"print"},  # the room that escapes
    "errors.py": {"warnings.warn"},  # the same for warnings
    "_deprecation.py": {"warnings.warn"},  # quotes names of arguments of cnnkit alone
    "export/isolated_worker.py": {"print"},  # JSON for the parent process
    "server/load_trial_worker.py": {"print"},  # the same
    "transfer/squared_hinge.py": {"warnings.warn"},  # quotes numbers alone
}


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
    assert table(rows) == ["name  parameters", "a          1,200", "bcd            -"]


def test_a_line_stays_one_line_whatever_a_name_holds(capsys):
    print_line(HOSTILE)
    print_error(f"note: {HOSTILE}")
    print_line("a" * 10**6)
    out, err = capsys.readouterr()
    assert out.split("\n")[0] == ESCAPED and err == f"note: {ESCAPED}\n"
    assert len(out) < 21_000 and out.endswith("... (1,000,000 characters)\n")
    # Other scripts, and a letter with its accent as a mark, are names like any other.
    assert cell("Pomeranian \u30d4\u30ab e\u0301 \U0001f415") == (
        "Pomeranian \u30d4\u30ab e\u0301 \U0001f415"
    )


def test_the_longest_line_and_name_are_shown_whole(capsys):
    print_line("a" * 20_000)
    assert capsys.readouterr().out == "a" * 20_000 + "\n"
    print_line("a" * 20_001)
    assert capsys.readouterr().out.endswith("a... (20,001 characters)\n")
    assert cell("b" * 200) == "b" * 200
    assert cell("b" * 201) == "b" * 200 + "... (201 characters)"


def test_truth_values_are_no_numbers():
    rows = [{"finished": True, "share": 0.5}, {"finished": False, "share": 12.25}]
    assert table(rows) == ["finished  share", "True        0.5", "False     12.25"]


def test_a_line_of_the_log_stays_one_line():
    formatter = LogFormatter("%(message)s")
    record = logging.LogRecord("cnnkit", logging.INFO, "x.py", 1, "Model %s", (HOSTILE,), None)
    assert formatter.format(record) == f"Model {ESCAPED}"
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        record.exc_info = sys.exc_info()
    lines = formatter.format(record).split("\n")
    assert lines[0] == f"Model {ESCAPED}" and all(line.isprintable() for line in lines)
    assert lines[1].startswith("Traceback") and lines[-2:] == f"ValueError: {ESCAPED}".split("\\n")


def test_errors_and_warnings_of_a_command_stay_one_line(capsys, monkeypatch):
    assert main(["recipes", "alexnet", HOSTILE]) == 2
    assert ESCAPED in capsys.readouterr().err

    notes = []

    def run(args):
        for kind in (AssumptionWarning, UserWarning):
            notes.append(warnings.formatwarning(kind(f"assumed {HOSTILE}"), kind, "x.py", 1, ""))
        raise OSError(f"no file {HOSTILE}")

    monkeypatch.setattr("cnnkit.cli.commands.recipes.run", run)
    assert main(["recipes"]) == 1
    assert notes[0] == f"cnnkit: note: assumed {ESCAPED}\n" and "\x1b" not in notes[1]
    [error] = capsys.readouterr().err.splitlines()
    assert error.startswith(r"cnnkit: error: OSError: no file cat\x1b[2K")
    assert main(["recipes", "--debug"]) == 1
    assert "\x1b" not in capsys.readouterr().err


def test_a_table_has_a_line_for_each_row_whatever_a_name_holds(capsys):
    print_table([{HOSTILE: 1, "name": HOSTILE}, {HOSTILE: 20, "name": "b" * 10**6}])
    header, first, second = capsys.readouterr().out.splitlines()
    assert header == f"{ESCAPED}  name"
    assert first == f"{'1':>{len(ESCAPED)}}  {ESCAPED}" and len(second) < 400


def test_json_keeps_every_name_and_is_plain_text(capsys):
    print_json({HOSTILE: HOSTILE})
    out = capsys.readouterr().out
    assert out.rstrip("\n").isascii() and out.rstrip("\n").isprintable()
    assert json.loads(out) == {HOSTILE: HOSTILE}


def test_the_label_of_a_bar_is_one_line(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar(4, HOSTILE) as progress:
        progress()
    assert ESCAPED in terminal.getvalue() and "\u202e" not in terminal.getvalue()


def outputs(tree):
    """The calls that print, as text, without those of `console`."""
    streams = ("sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        stream, _, method = name.rpartition(".")
        stream = stream.removesuffix(".buffer")
        if (
            name in ("print", "pprint", "pprint.pprint")
            or name in ("warnings.warn", "warnings.warn_explicit")
            or name.startswith("traceback.print")
            or (stream in streams and method in ("write", "writelines"))
        ):
            yield name


def test_everything_that_is_printed_goes_through_the_console():
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if names := set(outputs(ast.parse(path.read_text()))):
            found[path.relative_to(PACKAGE).as_posix()] = names
    assert found == OUTPUTS
    bypasses = "import sys\nsys.stdout.write('x')\nsys.stderr.buffer.write(b'')\nprint(1)"
    assert list(outputs(ast.parse(bypasses))) == [
        "sys.stdout.write", "sys.stderr.buffer.write", "print"
    ]  # fmt: skip


def test_json_is_one_line_unless_indented(capsys):
    print_json({"a": [1]})
    print_json({"a": 1}, indent=2)
    assert capsys.readouterr().out == '{"a": [1]}\n{\n  "a": 1\n}\n'


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


def test_without_a_terminal_a_line_is_printed_every_thirty_seconds(monkeypatch, capsys):
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    for resumed in (False, True):
        with progress_bar(100, "features", resumed=resumed) as progress:
            if resumed:
                progress(0)
            for seconds in (10, 10, 9, 2, 10, 10, 9, 2):
                now[0] += seconds
                progress(10)
        lines = capsys.readouterr().err.splitlines()
        assert lines == [
            "features: 40 of 100 images,  1.29 images/s, 00:46 left",
            "features: 80 of 100 images,  1.29 images/s, 00:15 left",
        ]


def test_less_than_an_image_a_second_is_told_in_images_a_second(monkeypatch, capsys):
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with progress_bar(10, "features") as progress:
        now[0] += 40
        progress(5)
    assert capsys.readouterr().err.splitlines() == [
        "features: 5 of 10 images,  0.12 images/s, 00:40 left"
    ]


def test_quiet_hides_progress_and_notes_but_no_errors(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    set_detail(Detail.QUIET)
    try:
        with progress_bar(4) as progress:
            progress()
        print_note("files are left out")
        print_detail("TensorFlow started")
        assert terminal.getvalue() == ""
        print_error("cnnkit: error: x")
        assert terminal.getvalue() == "cnnkit: error: x\n"
    finally:
        set_detail(Detail.NORMAL)
    print_note("files are left out")
    print_detail("TensorFlow started")
    assert terminal.getvalue().endswith("x\ncnnkit: note: files are left out\n")


def test_verbose_says_how_long_a_command_took(capsys):
    assert main(["-v", "recipes", "demo"]) == 0
    assert re.fullmatch(r"cnnkit: cnnkit recipes took \d+\.\d s\n", capsys.readouterr().err)
    assert main(["recipes", "demo"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [["recipes", "demo"], ["recipes", "--json"]])
def test_output_that_cannot_be_written_is_one_line(words, monkeypatch, capsys):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert main(words) == 1
    assert capsys.readouterr().err == (
        "cnnkit: error: Standard output could not be written: No space left on device."
        " Make room there.\n"
    )


def test_other_errors_of_the_system_are_told_in_words(monkeypatch, capsys):
    def fail(args):
        raise PermissionError(errno.EACCES, "Permission denied", "some/file")

    monkeypatch.setattr("cnnkit.cli.commands.recipes.run", fail)
    assert main(["recipes"]) == 1
    assert capsys.readouterr().err == (
        "cnnkit: error: some/file cannot be used. Received: Permission denied.\n"
    )


@pytest.mark.parametrize("said", [None, "2 files left out: 2 hidden"])
def test_files_that_are_left_out_are_a_note(said, capsys):
    print_left_out(SimpleNamespace(spec="folder:x", describe_left_out=lambda: said))
    assert capsys.readouterr().err == ("" if said is None else f"cnnkit: note: folder:x: {said}\n")
