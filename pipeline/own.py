r"""A stage of the user's own code: `stages: [extract, {use: my_filters.py:keep_recipes}, dedup, ...]`.

The name is a function `f(document: dict) -> bool | str | None` or a datatrove `PipelineStep`.

Function: called with each document (all its columns). `None` or `True` keeps it, `False` drops it by a rule of the
function's name, text drops it by that rule (a fixed reason, not one per document: rules are counted). A datatrove
filter's `(keep, reason)` works, too. To change a document's text, assign `document["text"]` and keep it.

    def keep_recipes(document):
        if "ingredients" not in document["text"].lower():
            return "no_recipe"
        document["text"] = document["text"].replace("\t", " ")

Step: an instance, a class, or a function without parameters that makes one. It is run once for each batch of up to
1,000 documents (`text`, `id`, the other columns in `metadata`); those it does not yield are dropped by the reason that
a filter gives, else by the stage's name. Of what it yields only the text is taken.

A document left without text is dropped by rule `empty_text`. The code must be a function of the document alone: no
clock, no random numbers, no order of documents. The file's content is part of the fingerprint (modules that it imports
are not), and it is loaded only where the recipe says `allow_code: true`.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from common.errors import PipelineError
from pipeline.config import OwnStage
from pipeline.documents import replace_texts
from pipeline.stage import Build, Stage
from pipeline.task import DocumentPass, Judge, Verdict, Verdicts


def files(settings: OwnStage, base: Path) -> list[Path]:
    """The Python file. Raises PipelineError where it is missing."""
    if not (base / settings.file).is_file():
        raise PipelineError(f"stages: {settings.use}: no file at {base / settings.file}")
    return [base / settings.file]


class OwnPass(DocumentPass):
    """Runs the user's code, loaded anew in each task so that no state of other tasks decides anything."""

    def __init__(self, build: Build[OwnStage]) -> None:
        super().__init__(build.settings.name, build.workdir, build.inputs, texts=build.texts)
        self.file = files(build.settings, build.base)[0].resolve()

    def open(self, rank: int) -> Judge:
        code = load(self.file, self.name)
        return StepJudge(code, self, rank) if isinstance(code, PipelineStep) else FunctionJudge(self.name, code)


def load(file: Path, name: str) -> Any:
    """The function or step `name` of a Python file. Raises PipelineError."""
    spec = importlib.util.spec_from_file_location(f"own.{file.stem}", file)
    assert spec is not None  # the name ends in .py
    assert spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        code = getattr(module, name, None)
        if inspect.isclass(code) or (inspect.isfunction(code) and not inspect.signature(code).parameters):
            code = code()
    except Exception as error:
        raise PipelineError(f"{file}: cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(code):  # datatrove's steps are, too
        what = "absent" if code is None else type(code).__name__
        raise PipelineError(f"{file}: `{name}` is {what}, allowed: a function or a datatrove PipelineStep")
    return code


class FunctionJudge(Judge):
    """Asks a function for each document."""

    def __init__(self, name: str, function: Callable[[dict[str, Any]], Any]) -> None:
        self.name, self.function = name, function

    def judge(self, table: pa.Table) -> tuple[pa.Table, Verdicts]:
        documents, texts = table.to_pylist(), table["text"].to_pylist()
        verdicts: list[Verdict | None] = []
        for i, document in enumerate(documents):
            answer = self.function(document)
            keep, reason = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, None)
            if isinstance(keep, str):
                keep, reason = False, keep
            if keep not in (None, True, False) or not isinstance(reason, (str, type(None))):
                raise PipelineError(
                    f"stage `{self.name}`: returned {answer!r} for document {document['id']}; allowed: None or True to"
                    " keep it, False or a reason (text) to drop it"
                )
            if keep is None or keep:
                verdicts.append(_take_text(texts, i, document["text"], self.name))
            else:
                verdicts.append(Verdict(reason or self.name))
        return replace_texts(table, texts), verdicts


class StepJudge(Judge):
    """Runs a datatrove step on each batch."""

    def __init__(self, step: Any, of: OwnPass, rank: int) -> None:
        self.step, self.name, self.rank, self.tasks = step, of.name, rank, of.tasks
        if getattr(step, "exclusion_writer", ...) is None:
            step.exclusion_writer = _Reasons()

    def judge(self, table: pa.Table) -> tuple[pa.Table, Verdicts]:
        texts = table["text"].to_pylist()
        documents = [Document(text=row.pop("text"), id=row.pop("id"), metadata=row) for row in table.to_pylist()]
        numbers = {document.id: i for i, document in enumerate(documents)}
        verdicts: list[Verdict | None] = [None] * len(documents)
        for kept in self.step.run(iter(documents), self.rank, self.tasks):
            if kept.id not in numbers:
                raise PipelineError(
                    f"stage `{self.name}`: yielded document {kept.id}, which it was not given, or twice"
                )
            i = numbers.pop(kept.id)
            verdicts[i] = _take_text(texts, i, kept.text, self.name)
        for i in numbers.values():
            verdicts[i] = Verdict(str(documents[i].metadata.get("filter_reason") or self.name))
        return replace_texts(table, texts), verdicts


class _Reasons(nullcontext[Any]):
    """Stands in for a filter's writer of dropped documents: with one, filters note their reason in the metadata."""

    def __enter__(self) -> _Reasons:
        return self

    def write(self, document: Document, rank: int) -> None:
        """Nothing: the reason is in `document.metadata`."""


def _take_text(texts: list[str], i: int, text: Any, name: str) -> Verdict | None:
    """Replace a kept document's text; an empty one drops it."""
    if not isinstance(text, str):
        raise PipelineError(f"stage `{name}`: left {type(text).__name__} as a document's text; allowed: text")
    if not text.strip():
        return Verdict("empty_text", 0.0, 1.0)
    texts[i] = text
    return None


STAGE = Stage("own", __name__, ("datatrove", "pyarrow"), lambda build: iter([OwnPass(build)]), files, single=OwnPass)
