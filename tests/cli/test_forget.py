"""`pretrain forget`: what it finds, and that the run without documents equals one that was built without them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from cli.commands import app
from common.files import list_files, read_json
from common.runfolder import RunFolder
from pipeline.lookup import Lookup
from tests.cli.conftest import RECIPE
from tests.conftest import PROSE, page, write_warc
from trainer.trace import History, read_order

SHORT = "https://b.org/short"


def pretrain(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == code, done.output
    return done.output


def hashes(run: Path) -> dict[str, str]:
    """Hashes of all that the stages published, and their manifests."""
    folders = [*sorted((run / "corpus").glob("[0-9]*")), run / "shards"]
    files = {str(folder / name): of["xxh3"] for folder in folders for name, of in list_files(folder).items()}
    manifests = {str(folder): (folder / "manifest.json").read_text() for folder in folders}
    return {name.removeprefix(str(run)): content for name, content in (files | manifests).items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, its archive with some duplicates, an unfit and an empty page, and its run."""
    folder = tmp_path_factory.mktemp("forget")
    halves = {name: (text[:360], text[360:]) for name, text in PROSE.items()}
    pages = {
        f"https://a.org/{one}/{other}": page(f"{halves[one][0]}\n\n{halves[other][1]}")
        for one in PROSE
        for other in PROSE
    }
    pages |= {f"https://copy.org/{name}": page("\n\n".join(of)) for name, of in halves.items()}
    pages |= {SHORT: page("Far too short to keep."), "https://b.org/empty": b"<html></html>"}
    write_warc(folder / "pages.warc.gz", pages)
    recipe = yaml.safe_load(RECIPE)
    recipe |= {
        "sources": [{"name": "web", "type": "warc", "paths": ["pages.warc.gz"]}],
        "stages": ["extract", "language", "dedup", "quality", "tokenize"],
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pretrain("run", "small.yaml")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the current folder."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "copy"))
    return tmp_path / "copy"


@pytest.fixture
def run(folder: Path) -> RunFolder:
    return RunFolder(folder / "runs/small")


def test_where_a_document_is(run: RunFolder) -> None:
    history, order = History(run.trained, run.shards), read_order(run.shards, run.state, run.ledger)
    for step in range(4):
        assert order.sampler.batch(step).tolist() == history.sampler.batch(step).tolist()
    rows = pq.read_table(run.documents).to_pylist()
    trained = next(row for row in rows if row["split"] == "train")
    pieces = [row for row in rows if row["id"] == trained["id"]]
    value = json.loads(pretrain("forget", "runs/small", "--url", trained["url"], "--json"))
    document = value["documents"][0]
    assert (document["id"], document["dropped_by"], document["because"]) == (trained["id"], None, "asked for")
    assert sorted((piece["sample"], piece["offset"]) for piece in document["pieces"]) == sorted(
        (row["sample"], row["offset"]) for row in pieces
    )
    known = {key: history.steps_of(*key) for key in {(row["stream"], row["sample"]) for row in pieces}}
    assert {(p["stream"].partition("/")[2], p["sample"]): p["steps"] for p in document["pieces"]} == known
    first = min((step for steps in known.values() for step in steps), default=5)
    clean = [path.name for path in run.checkpoints if int(path.name[5:]) < first]
    assert value["checkpoint"] == (clean[-1] if clean else None)


def test_a_lookup_needs_no_torch(run: RunFolder) -> None:
    code = "import sys; from cli.commands import app; app(sys.argv[1:], standalone_mode=0)"
    code += "; assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, "forget", "runs/small", "--url", SHORT]
    subprocess.run(command, check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_every_document_is_found_by_id_and_address_and_with_its_duplicates(run: RunFolder) -> None:
    lookup = Lookup(run)
    rows = pq.read_table(run.text_stages["extract"].data).to_pylist()
    for row in rows:
        assert [each["url"] for each in lookup.find("id", row["id"])] == [row["url"]]
        assert [each["id"] for each in lookup.find("url", row["url"])] == [row["id"]]
    short = next(row for row in rows if row["url"] == SHORT)
    assert lookup.find("id", short["id"])[0]["rule"] is not None
    assert lookup.pieces(short["id"]) == []
    twins = json.loads(pretrain("forget", "runs/small", "--url", "https://copy.org/fox", "--json"))["documents"]
    assert {"https://copy.org/fox", "https://a.org/fox/fox"} <= {row["url"] for row in twins}
    alone = pretrain("forget", "runs/small", "--url", "https://copy.org/fox", "--keep-duplicates", "--json")
    assert len(json.loads(alone)["documents"]) == 1


@pytest.mark.parametrize(
    ("changed", "options"), [([], ["--keep-duplicates"]), (["--set", "dedup.line_documents=3"], [])]
)
def test_the_run_without_documents_is_that_of_a_build_without_them(
    folder: Path, run: RunFolder, changed: list[str], options: list[str]
) -> None:
    """Also where a duplicate takes the place of one that was kept, and where documents cut each other's lines."""
    if changed:
        pretrain("corpus", "small.yaml", *changed)
    urls = ["https://a.org/river/bread", "https://a.org/fox/fox", SHORT, "https://b.org/empty"]
    (folder / "requests.txt").write_text("# by letter\n" + "\n".join(urls))
    pretrain("forget", "runs/small", "--list", "requests.txt", "--apply", *options)
    scratch = folder / "runs/scratch"
    scratch.mkdir()
    shutil.copy(run.forgotten, scratch)
    pretrain("corpus", "small.yaml", "--set", "name=scratch", *changed)
    assert hashes(run.path) == hashes(scratch)
    for path in [*run.path.glob("corpus/*/*/*.parquet"), run.documents]:
        table = pq.read_table(path)
        assert "url" not in table.column_names or not {*urls} & {*table["url"].to_pylist()}
    listed = run.forgotten.read_text()
    assert not any(url in listed for url in urls)
    fate = json.loads(pretrain("trace", "runs/small", "--doc", read_json(run.forgotten)["documents"][0], "--json"))
    assert fate[0]["rule"] == "forgotten"
    assert f"taken out before: {urls[0]}" in pretrain("forget", "runs/small", "--url", urls[0])


def test_training_goes_on_from_the_checkpoint_that_saw_none(folder: Path, run: RunFolder) -> None:
    """With a given tokenizer, which no document changes; trace knows the steps since, and refuses those before."""
    shutil.copy(run.shards / "tokenizer.json", folder / "tokenizer.json")
    fields = ["tokenize.sequence_length=512", "train.global_batch_tokens=512", "train.micro_batch=1", "train.steps=5"]
    fields += ["train.checkpoint.every=1", "train.checkpoint.keep_last=9"]
    given = [part for field in ["tokenize.tokenizer.path=tokenizer.json", *fields] for part in ("--set", field)]
    pretrain("run", "small.yaml", *given, "--from", "tokenize")
    order = read_order(run.shards, RunFolder(run.path).state, [])
    steps: dict[str, list[int]] = {}
    for row in pq.read_table(run.documents, filters=[("split", "=", "train")]).to_pylist():
        steps.setdefault(row["id"], []).extend(order.steps_of(f"train/{row['stream']}", row["sample"]))
    late, first = max(((document, min(read)) for document, read in steps.items()), key=lambda each: each[1])
    assert first > 2
    printed = pretrain("forget", "runs/small", "--doc", late, "--keep-duplicates", "--plan")
    assert f"newest checkpoint that never saw them: step-{first - 1:08d}" in printed
    assert f"training: {6 - first} steps to repeat" in printed
    printed = pretrain("forget", "runs/small", "--doc", late, "--keep-duplicates", "--apply")
    assert f"training goes on from step-{first - 1:08d}" in printed
    before = hashes(run.path)
    pretrain("corpus", "small.yaml", *given)
    assert hashes(run.path) == before  # where the tokenizer lies, seen from either recipe, decides nothing
    accept = ["--set", "train.checkpoint.accept=[shards]"]
    pretrain("train", "runs/small/recipe.yaml", *accept)
    assert RunFolder(run.path).result["step"] == 5
    assert "trained on other shards" in pretrain("trace", "runs/small", "--step", str(first - 1), code=1)
    assert json.loads(pretrain("trace", "runs/small", "--step", str(first), "--json"))


def test_wrong_uses(run: RunFolder, folder: Path) -> None:
    assert "no document has this address or id: nowhere" in pretrain("forget", "runs/small", "--url", "nowhere", code=2)
    assert "--url, --doc or --list" in pretrain("forget", "runs/small", code=2)
    assert "no file at" in pretrain("forget", "runs/small", "--list", "missing.txt", code=2)
    run.forgotten.write_text("[]")
    assert "not a list of forgotten documents" in pretrain("corpus", "small.yaml", code=1)
