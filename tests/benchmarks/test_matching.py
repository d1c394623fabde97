"""One method measured again leaves the other rows of the document."""

from __future__ import annotations

from pathlib import Path

import matching


def test_rows_that_are_not_given_stay_and_all_are_in_order(tmp_path: Path) -> None:
    file, rest = tmp_path / "page.md", ["x"] * 11
    names = ("area", "hardnet")
    rows = [
        ["validation, warped", name, "400", share, *rest] for name, share in zip(names, ("0.9", "0.4"), strict=True)
    ]
    file.write_text("before\n<!-- evaluation -->\n<!-- end of evaluation -->\nafter\n")
    matching._write(file, "evaluation", matching.COLUMNS, rows, matching._order)
    matching._write(file, "evaluation", matching.COLUMNS, [[*rows[0][:3], "0.1", *rest]], matching._order)
    lines = file.read_text().splitlines()
    assert [line.split(" | ")[1:4:2] for line in lines[4:6]] == [["hardnet", "0.4"], ["area", "0.1"]]
    assert (lines[0], lines[-1], len(lines)) == ("before", "after", 8)
