"""`pretrain export --format dataset` and `pretrain verify` on a small corpus."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from cli.commands import app
from common.files import list_files, read_json, sha256, write_json
from tests.conftest import PROSE


def pretrain(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small corpus, published after one document was taken out."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "texts").mkdir()
    for name, text in PROSE.items():
        for number in range(3):
            (folder / f"texts/{name}{number}.txt").write_text(f"{text} Number {number}.")
    source = {"name": "web", "type": "text", "paths": ["texts/*.txt"], "license": "CC0-1.0"}
    recipe = {"name": "small", "sources": [source], "stages": ["extract", "quality"], "executor": {"workers": 1}}
    (folder / "small.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pretrain("corpus", "small.yaml")
        pretrain("forget", "runs/small", "--url", "file:web/fox1.txt", "--apply")
        pretrain("export", "runs/small", "--format", "dataset", "--output", "published")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the current folder."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "copy"))
    return tmp_path / "copy"


@pytest.fixture
def dataset(folder: Path) -> Path:
    return folder / "published"


def test_what_is_in_the_folder(dataset: Path) -> None:
    table = pq.read_table(dataset / "data")
    assert table.num_rows == 8
    head, _, body = (dataset / "README.md").read_text("utf-8")[4:].partition("\n---\n")
    card = yaml.safe_load(head)
    assert (card["license"], card["size_categories"]) == ("cc0-1.0", ["n<1K"])
    assert card["configs"][0]["data_files"] == [{"split": "train", "path": "data/*.parquet"}]
    assert "| web | text | CC0-1.0 | 8 |" in body
    assert "| extract | forgotten | 1 |" in body
    manifest = read_json(dataset / "manifest.json")
    assert manifest["files"] == list_files(dataset)
    assert len(manifest["inputs"]) == 9
    assert "fox1" not in (dataset / "forgotten.json").read_text()


def test_croissant_names_files_and_columns(dataset: Path) -> None:
    described = read_json(dataset / "croissant.json")
    files = {of["contentUrl"]: of["sha256"] for of in described["distribution"] if of["@type"] == "cr:FileObject"}
    assert files == {f"data/{path.name}": sha256(path) for path in (dataset / "data").iterdir()}
    names = [field["source"]["extract"]["column"] for field in described["recordSet"][0]["field"]]
    assert names == pq.read_schema(dataset / "data/00000.parquet").names
    croissant = pytest.importorskip("mlcroissant")
    read = list(croissant.Dataset(str(dataset / "croissant.json")).records("documents"))
    assert [row["documents/id"].decode() for row in read] == pq.read_table(dataset / "data")["id"].to_pylist()


def test_a_stranger_with_the_same_inputs(dataset: Path, folder: Path) -> None:
    again = ["verify", "published", "--recipe", "small.yaml", "--set", "name=stranger"]
    assert "8 documents, the same bytes" in pretrain(*again)
    pq.write_table(pq.read_table(path := dataset / "data/00000.parquet"), path, compression="none")
    assert "changed since it was exported" in pretrain(*again, code=1)
    _publish_anew(dataset)
    assert "the same documents in other bytes" in pretrain(*again)


def test_a_stranger_with_other_inputs_is_told_the_first_document_that_differs(dataset: Path, folder: Path) -> None:
    again = ["verify", "published", "--recipe", "small.yaml"]
    text = folder / "texts/river2.txt"
    text.write_text(text.read_text().replace("weir", "dam"))
    told = json.JSONDecoder().raw_decode(pretrain(*again, "--json", "--quiet", code=1))[0]
    assert told["inputs"] == ["web/river2.txt: differs"]
    assert (told["difference"]["document"]["url"], told["difference"]["column"]) == ("file:web/river2.txt", "text")
    printed = pretrain(*again, code=1)
    assert "file:web/river2.txt" in printed
    assert "input web/river2.txt: differs" in printed


def test_other_lists_of_forgotten_documents_are_refused(dataset: Path, folder: Path) -> None:
    write_json(folder / "runs/small/forgotten.json", {"documents": [], "addresses": []})
    assert "another list" in pretrain("verify", "published", "--recipe", "small.yaml", code=2)
    assert "not a data set" in pretrain("verify", "texts", "--recipe", "small.yaml", code=1)


def _publish_anew(dataset: Path) -> None:
    """As somebody would who wrote the same rows with another library."""
    manifest = read_json(dataset / "manifest.json")
    write_json(dataset / "manifest.json", manifest | {"files": list_files(dataset)})
    assert isinstance(pq.read_table(dataset / "data"), pa.Table)
