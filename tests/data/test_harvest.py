"""Pages of installed documentation: the same bytes each time, from several packages, with prose to extract."""

from __future__ import annotations

from pathlib import Path

from data.harvest import harvest, module_page, render, text_page
from pipeline.extract import extract_text
from pipeline.read.archives import read_records


def test_a_harvest_is_reproducible_and_diverse(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/harvest-007.warc.gz").write_bytes(b"of an earlier, larger harvest")
    reports = [harvest(tmp_path / name, limit_bytes=100_000) for name in ("a", "b")]
    assert reports[0] == reports[1]
    assert reports[0].packages > 3
    assert reports[0].html_bytes >= 100_000
    first, second = ([path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in ("a", "b"))
    assert first == second
    records = list(read_records(tmp_path / "a/harvest-000.warc.gz"))
    assert len({record.url for record in records}) == reports[0].pages


def test_a_module_becomes_a_page_of_its_docstrings(tmp_path: Path) -> None:
    prose = "The weir was rebuilt after the flood, and the miller kept the old stones for a garden wall. " * 5
    path = tmp_path / "weir.py"
    path.write_text(f'"""{prose}"""\n\ndef rebuild():\n    """{prose}"""\n\ndef _hidden():\n    """{prose}"""\n')
    page = module_page("mill", "mill/weir.py", path)
    assert page is not None
    assert [(level, title) for level, title, _ in page.sections] == [(1, "mill.weir"), (2, "rebuild")]
    for number in range(3):
        text = extract_text(render(page, number).encode())
        assert text.count(prose.strip()) == 2
        assert "Imprint" not in text


def test_what_makes_no_page(tmp_path: Path) -> None:
    for name, content in (("short.py", b'"""Short."""'), ("broken.py", b"def (:"), ("latin.txt", b"caf\xe9" * 400)):
        path = tmp_path / name
        path.write_bytes(content)
        assert (module_page if path.suffix == ".py" else text_page)("mill", name, path) is None
