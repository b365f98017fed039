from xml.etree import ElementTree as ET

from bench import __main__ as command_line
from bench.harness.results import PartResult, ResultRow
from bench.report import page, plots, tables
from bench.report.plots import Chart
from support.bench_results import of_every_part, result
from support.cases import each


@each(
    ("value", "expected"),
    [
        (0, "0"),
        (0.333, "0.33"),
        (9.994, "9.99"),
        (12.34, "12.3"),
        (123.4, "123"),
        (12_345.6, "12,346"),
        (-7.25, "-7.25"),
    ],
)
def test_numbers_have_three_digits(value, expected):
    assert expected == tables.number(value)


def test_one_round_has_no_range():
    assert tables.spread([3.0]) == "3.00"
    assert tables.spread([1.0, 3.0, 2.0]) == "2.00 (1.00–3.00)"  # noqa: RUF001 - the sign of a range


def test_variants_with_fewer_figures_share_a_table():
    rows = [ResultRow("a case", "ours", {"ms": [1.0], "CPU": [2.0]}), ResultRow("a case", "peer", {"ms": [3.0]})]

    table = tables.figures(result("x", rows))

    assert table.splitlines() == [
        "| case | variant | rounds | ms | CPU |",
        "| --- | --- | ---: | ---: | ---: |",
        "| a case | ours | 1 | 1.00 | 2.00 |",
        "| a case | peer | 1 | 3.00 |  |",
    ]


def test_results_are_read_as_they_were_saved(tmp_path):
    (saved, *_) = of_every_part()

    assert PartResult.read(saved.save(tmp_path / "new")) == saved


def test_the_page_has_a_section_and_the_plots_of_every_part(tmp_path):
    page.write(of_every_part(), tmp_path / "RESULTS.md", "before the change")

    text = (tmp_path / "RESULTS.md").read_text()
    drawn = sorted((tmp_path / "plots").glob("*.svg"))
    assert "**before the change**" in text
    assert [f"## {part.NAME}" for part in command_line.PARTS] == [
        line for line in text.splitlines() if line.startswith("## ")
    ][2:]
    assert all(f"(plots/{path.name})" in text for path in drawn)
    assert len(drawn) == 6
    for path in drawn:
        ET.parse(path)


def test_bars_are_as_long_as_their_medians():
    drawn = plots.bars(Chart("speed", "/s", {"a case": {"ours": [1.0, 2.0, 4.0], "peer & co": [1.0]}}))

    widths = [float(bar.get("width")) for bar in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}rect")]
    ours, peer = (width for width in widths[1:] if width != 10)
    assert ours == 2 * peer


@each("points", [[(200.0, 5.0)], [(200.0, 5.0), (300.0, 5_000.0)]])
def test_a_curve_is_drawn_for_one_rate_and_for_any_range(points):
    drawn = plots.line("p99", ("tasks a second", "ms"), points, limit=50)

    assert len(list(ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}circle"))) == len(points)


def test_report_without_results_names_what_makes_some(tmp_path, capsys):
    status = command_line.main(["report", "--results", str(tmp_path), "--page", str(tmp_path / "page.md")])

    assert status == 1
    assert "python -m bench all" in capsys.readouterr().err
