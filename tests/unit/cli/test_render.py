"""Tables, figures and progress, on a terminal and where there is none."""

import io
import json

import pytest

from finetune.cli.render import (
    Column,
    Screen,
    count,
    duration,
    figure,
    lay_out,
    print_json,
    print_json_rows,
    printable,
)

PATH = (Column("path", "left", is_shortened=True), Column("value"))


class Terminal(io.StringIO):
    """A stream that calls itself a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_text_stands_left_and_figures_right() -> None:
    assert lay_out(PATH, [["a.jpg", "1"], ["bb.jpg", "22"]], width=80) == [
        "path    value",
        "a.jpg       1",
        "bb.jpg     22",
    ]


def test_a_narrow_terminal_shortens_names_in_the_middle_and_no_figure() -> None:
    lines = lay_out(PATH, [["photos/garden/summer/rose.jpg", "0.123456"]], width=26)
    assert lines[1] == "photos/…rose.jpg  0.123456"
    assert max(map(len, lines)) <= 26


def test_of_several_names_the_widest_is_shortened_first() -> None:
    columns = (*PATH[:1], Column("class", "left", is_shortened=True))
    lines = lay_out(columns, [["photos/rose.jpg", "a very long name of a class"]], width=36)
    assert lines[1] == "photos/rose.jpg  a very lo…f a class"


def test_sentences_are_wrapped_beside_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = io.StringIO()
    Screen(stream).entries([("probe", "An answer in seconds, and the mark to beat."), ("vit", "x")])
    assert stream.getvalue().splitlines() == [
        "  probe  An answer in seconds, and the",
        "         mark to beat.",
        "  vit    x",
    ]


def test_wide_letters_count_twice() -> None:
    lines = lay_out(PATH, [["花.jpg", "1"], ["rose.jpg", "2"]], width=80)
    assert lines == ["path      value", "花.jpg        1", "rose.jpg      2"]


def test_wide_letters_are_shortened_to_the_width_they_take() -> None:
    lines = lay_out(PATH, [["花" * 20, "1"]], width=20)
    assert lines[1] == "花花花…花花花      1"


def test_no_name_can_move_the_cursor() -> None:
    assert printable("a\x1b[2J\nb\udcff") == "a\\x1b[2J\\nb\\udcff"


def test_words_of_every_script_are_shown_as_they_are() -> None:
    words = "\u0645\u06cc\u200c\u062e\u0648\u0631\u0645 büße 花"  # with a joiner within a word
    assert printable(words) == words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599.6, "1 h 00 min"),
        (7265, "2 h 01 min"),
    ],
)
def test_a_duration_is_written_as_a_person_says_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_undefined_figure_is_a_dash() -> None:
    assert [figure(0.12345), figure(None), figure(float("nan")), figure(2.5, 1)] == [
        "0.123",
        "-",
        "-",
        "2.5",
    ]


def test_large_numbers_have_separators() -> None:
    assert count(1234567) == "1,234,567"


def test_json_has_plain_letters_and_refuses_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "花"}, indent=None)
    assert capsys.readouterr().out == '{"name": "花"}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json(float("nan"))


def test_a_stream_that_is_no_terminal_gets_whole_lines_without_colour() -> None:
    stream = io.StringIO()
    screen = Screen(stream)
    screen.table(PATH, [["x" * 300, "1"]])
    screen.warn("y" * 300)
    assert stream.getvalue().splitlines()[1:] == [
        "  " + "x" * 300 + "      1",
        "warning: " + "y" * 300,
    ]


def test_a_terminal_gets_colour() -> None:
    stream = Terminal()
    Screen(stream).warn("careful")
    assert stream.getvalue() == "\x1b[33mwarning: careful\x1b[0m\n"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    Screen(stream).warn("careful")
    assert "\x1b[33m" not in stream.getvalue()


def test_text_that_looks_like_markup_is_shown_as_it_is() -> None:
    stream = io.StringIO()
    Screen(stream).line("[bold]x[/bold] :smile: {a}")
    assert stream.getvalue() == "[bold]x[/bold] :smile: {a}\n"


def test_without_a_terminal_progress_is_a_line_now_and_then() -> None:
    stream, clock = io.StringIO(), Clock()
    screen = Screen(stream, clock=clock)
    for done in range(1, 101):
        clock.now = done * 0.25
        screen.progress("training", done, 100, 4.0)
    assert stream.getvalue().splitlines() == [
        "  training: 41 of 100 images  4.0 images/s, 15 s left",
        "  training: 81 of 100 images  4.0 images/s, 4.8 s left",
    ]


def test_work_that_is_quick_leaves_no_line() -> None:
    stream = io.StringIO()
    screen = Screen(stream)
    for done in range(1, 101):
        screen.progress("training", done, 100, 1000.0)
    screen.end_progress()
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_with_rate_and_time_left() -> None:
    stream, clock = Terminal(), Clock()
    screen = Screen(stream, clock=clock)
    screen.progress("training", 1, 100, 25.0)
    clock.now = 1.0
    screen.progress("training", 25, 100, 25.0)
    assert " 25/100" in stream.getvalue()
    assert "25 images/s, 3.0 s left" in stream.getvalue()
    screen.end_progress()


def test_a_dumb_terminal_gets_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    Screen(stream).progress("training", 1, 100, 25.0)
    assert stream.getvalue() == ""


def test_names_in_lines_and_warnings_are_escaped() -> None:
    stream = io.StringIO()
    screen = Screen(stream)
    screen.line("one\ntwo \x1b[2J")
    screen.warn("a\nerror: b")
    assert stream.getvalue() == "one\ntwo \\x1b[2J\nwarning: a\\nerror: b\n"


def test_json_is_json_in_every_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", errors="backslashreplace")
    monkeypatch.setattr("sys.stdout", stream)
    print_json({"name": "🐈é"})
    stream.flush()
    assert json.loads(stream.buffer.getvalue()) == {"name": "🐈é"}  # type: ignore[attr-defined]


def test_a_reader_that_has_left_is_left_to_the_border() -> None:
    class Left(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        Screen(Left()).line("to nobody")


def test_rows_are_an_array_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    print_json_rows({"n": number} for number in range(2))
    print_json_rows([])
    assert capsys.readouterr().out == '[\n {"n": 0},\n {"n": 1}\n]\n[]\n'
