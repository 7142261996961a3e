"""What describes a data set folder: README.md with the header that the Hub reads, and croissant.json for programs.

Every figure comes from the run's own files. Croissant 1.0 (mlcommons.org/croissant) names each parquet file with its
SHA-256, and every column of a document.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from huggingface_hub import DatasetCardData

from common.files import sha256
from common.runfolder import Row
from pipeline.documents import Counts, read_schema

SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "n>1B")
# License identifiers of the Hub; any other text is `other` there, and stands in the table of sources.
LICENSES = {
    "unknown",  # where none is stated
    *("apache-2.0", "mit", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0"),
    *("cc-by-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "odc-by", "odbl", "pddl", "gfdl", "psfl", "bsd-3-clause"),
    *("bsd-2-clause", "gpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "unlicense", "wtfpl"),
}
# The vocabulary of Croissant 1.0.
_TERMS = (
    *("citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format"),
    *("includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex"),
    *("repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}
WEAKNESSES = """## Known weaknesses

- Rules measure form, not truth: errors, prejudices and invented facts of the sources are in the text.
- Main text is found by a program: some navigation stays, some tables, formulas and code lose their form.
- Languages are guessed; short and mixed texts are guessed worst, and rules were made for English first.
- Near-duplicates below the recipe's similarity stay, and a text may quote another at length.
- Personal data stays unless `quality.mask` says otherwise, and masking finds forms of addresses only.
- Licenses are what the recipe states of a source, not of each page."""


@dataclass(frozen=True)
class Facts:
    """What a card tells. sources: the recipe's; funnel: stats.json of each stage; counts: {documents, bytes} by value
    under `languages` and `sources`."""

    name: str
    sources: list[Row]
    funnel: list[Row]
    counts: Counts

    @property
    def documents(self) -> int:
        return int(self.funnel[-1]["documents_kept"])


def dataset_card(facts: Facts) -> str:
    """Markdown with the metadata block that the Hub reads."""
    counts, funnel, documents = facts.counts, facts.funnel, facts.documents
    size = sum(of["bytes"] for of in counts["sources"].values())
    languages = [name for name, _ in _largest(counts["languages"]) if name != "und"]
    stated = {str(source.get("license") or "unknown").lower() for source in facts.sources}
    licenses = sorted({name if name in LICENSES else "other" for name in stated})
    data = DatasetCardData(
        pretty_name=facts.name,
        license=licenses[0] if len(licenses) == 1 else licenses,
        language=languages or None,
        task_categories=["text-generation"],
        size_categories=[SIZES[min(max(len(str(documents)) - 3, 0), len(SIZES) - 1)]],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
        tags=["croissant", "pretrain"],
    )
    parts = [
        f"---\n{data.to_yaml()}\n---\n\n# {facts.name}",
        f"{documents:,} documents, {size / 1e6:,.1f} MB of text, made with `pretrain` from a recipe. One row"
        " is one document; `id` is a hash of its file and offset, the columns are described in croissant.json.",
        "## Sources and licenses",
        _table(
            ["source", "type", "license", "documents", "MB of text"],
            [
                [of["name"], of["type"], of.get("license") or "not stated", *_amount(counts["sources"].get(of["name"]))]
                for of in facts.sources
            ],
        ),
        "## Languages",
        _table(["language", "documents", "MB of text"], [[n, *_amount(of)] for n, of in _largest(counts["languages"])]),
        "## How it was made",
        _table(
            ["stage", "documents in", "kept", "dropped"],
            [[row["stage"], *(f"{row[f'documents_{k}']:,}" for k in ("in", "kept", "dropped"))] for row in funnel],
        ),
        "Documents dropped, each by the first rule that it broke:",
        _table(
            ["stage", "rule", "documents"],
            [
                [row["stage"], rule, f"{count:,}"]
                for row in funnel
                for rule, count in sorted(row["dropped"].items(), key=lambda item: (-item[1], item[0]))
            ],
        ),
        "recipe.yaml is the recipe with every default filled in. manifest.json lists versions, hashes of the inputs and"
        " of all files. With the same inputs, `pretrain verify FOLDER --recipe recipe.yaml` repeats it.",
        WEAKNESSES,
    ]
    return "\n\n".join(parts) + "\n"


def _table(header: list[str], rows: list[list[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _largest(counts: dict[str, Counts]) -> list[tuple[str, Counts]]:
    return sorted(counts.items(), key=lambda item: (-item[1]["documents"], item[0]))


def _amount(of: Counts | None) -> list[str]:
    return [f"{of['documents']:,}", f"{of['bytes'] / 1e6:,.1f}"] if of else ["0", "0.0"]


def croissant(facts: Facts, folder: Path) -> dict[str, Any]:
    """The description in Croissant 1.0: each parquet file with its SHA-256, and the columns of a document."""
    files = sorted((folder / "data").glob("*.parquet"))
    fields = []
    for column in read_schema(files[0]):
        is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        kind = "Text" if not is_number else "Integer" if pa.types.is_integer(column.type) else "Float"
        field: Row = {"@type": "cr:Field", "@id": f"documents/{column.name}", "name": column.name}
        field |= {"dataType": f"sc:{kind}"}
        fields.append(field | {"source": {"fileSet": {"@id": "parquet"}, "extract": {"column": column.name}}})
    objects = [
        {
            "@type": "cr:FileObject",
            "@id": f"data/{path.name}",
            "name": f"data/{path.name}",
            "contentUrl": f"data/{path.name}",
            "encodingFormat": "application/x-parquet",
            "sha256": sha256(path),
        }
        for path in files
    ]
    together: Row = {"@type": "cr:FileSet", "@id": "parquet", "name": "parquet", "includes": "data/*.parquet"}
    together |= {"encodingFormat": "application/x-parquet"}
    licenses = sorted({source.get("license") or "not stated" for source in facts.sources})
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": facts.name,
        "description": f"{facts.documents:,} documents for pretraining, made from a recipe.",
        "license": licenses,
        "distribution": [*objects, together],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "documents", "name": "documents", "field": fields}],
    }
