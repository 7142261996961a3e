"""`verify`: build a published data set again from its recipe, and compare."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import Overrides, Result
from cli.terminal import CorpusView, clean
from common.errors import PipelineError, RecipeError
from common.files import hash_file
from common.runfolder import RunFolder

_CHARACTERS = 200  # of a value that is shown


def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of `pretrain export --format dataset`.", show_default=False)],
    recipe: Annotated[Path, typer.Option(help="Recipe with your paths to the inputs.", show_default=False)],
    overrides: Overrides = None,
) -> Result:
    """Build a published data set again and compare: the same files, or the first document that differs.

    The recipe is the published one, with `sources.*.paths` where your copies of the inputs are. Its run folder is built
    or brought up to date; stages after the last one with texts are not needed.

    Example: pretrain verify corpus/ --recipe corpus/recipe.yaml
    """
    from cli.contents import read_recipe
    from pipeline.build import build_corpus
    from pipeline.publish import changed_inputs, first_difference, read_dataset, write_dataset
    from recipes.load import check_paths, load_recipe

    theirs = read_dataset(folder)
    loaded = load_recipe(recipe, overrides or ())
    check_paths(loaded)
    run = RunFolder(loaded.run)
    _take_list(folder, run)
    last = [name for name in loaded.recipe.stage_names if name != "tokenize"][-1]
    with CorpusView() as view:
        build_corpus(loaded.recipe, loaded.run, loaded.base, last=last, observer=view)
    again = write_dataset(RunFolder(loaded.run), run.path / "export" / "again", read_recipe(run).get("sources", []))
    ours = read_dataset(again)
    same = all(_hash(folder / name) == _hash(again / name) for name in _data(theirs) | _data(ours))
    found = None if same else first_difference(folder, again)
    shutil.rmtree(again)
    inputs = changed_inputs(theirs, ours)
    versions = {
        name: [theirs["versions"].get(name), number]
        for name, number in ours["versions"].items()
        if theirs["versions"].get(name) != number
    }
    value: dict[str, Any] = {"same_files": same, "same_documents": found is None, "documents": ours["documents"]}
    value |= {"difference": found and found._asdict(), "inputs": inputs, "versions": versions}
    notes = [f"input {line}" for line in inputs[:10]]
    notes += [f"{name}: theirs {pair[0]}, here {pair[1]}" for name, pair in versions.items()]
    if found is None:
        how = "the same bytes" if same else "the same documents in other bytes, which other versions write"
        return Result(value, f"{folder}: reproduced: {ours['documents']:,} documents, {how}", *([] if same else notes))
    about = f"{found.document['id']} ({clean(found.document['url'] or found.document['path'], 120)})"
    shown = [clean(repr(each), _CHARACTERS) for each in (found.theirs, found.ours)]
    message = (
        f"{folder}: not reproduced. The first document that differs: {found.file}, row {found.row}, {about}:"
        f" `{found.column}` is {shown[0]} there and {shown[1]} here"
    )
    return Result(value, error=PipelineError("\n  ".join([message, *notes])))


def _data(manifest: dict[str, Any]) -> set[str]:
    return {name for name in manifest["files"] if name.startswith("data/")}


def _hash(path: Path) -> str | None:
    return hash_file(path) if path.is_file() else None


def _take_list(folder: Path, run: RunFolder) -> None:
    """Take over the list of documents that were taken out. Raises RecipeError where the run has another."""
    theirs, ours = folder / run.forgotten.name, run.forgotten
    if _hash(theirs) == _hash(ours):
        return
    if ours.is_file() or not theirs.is_file():
        raise RecipeError(f"{ours}: another list than the data set's; verify under another `name` (--set name=...)")
    ours.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(theirs, ours)
