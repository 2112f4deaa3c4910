"""The tables of docs/RELIABILITY.md are those that the benchmarks printed."""

import json
import sys

from conftest import REPO, call

sys.path.insert(0, str(REPO / "benchmarks/robustness"))
import tables


def test_a_table_is_kept_and_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results.json")
    tables.print_table("a", ("x", "y"), [(1, "é")], save=False)
    printed = capsys.readouterr().out
    assert printed == "| x | y |\n| --- | --- |\n| 1 | é |\n"
    assert tables.read_tables() == {}
    for number in (1, 2):
        tables.print_table("b", ("x",), [(number,)], save=True)
    tables.print_table("a", ("x", "y"), [(1, "é")], save=True)
    assert json.loads(tables.RESULTS.read_text("utf-8"))["b"]["lines"][2] == "| 2 |"
    capsys.readouterr()
    call(tables)
    assert printed in capsys.readouterr().out


def test_the_docs_have_the_tables_as_they_were_printed():
    kept, text = tables.read_tables(), (REPO / "docs/RELIABILITY.md").read_text("utf-8")
    assert "memory" in kept
    for table in kept.values():
        assert "\n".join(table["lines"]) + "\n" in text
