"""Typed, frozen configuration of a corpus: one model per stage, every default filled in.

Nothing here reads a file or imports a heavy library, so `pretrain check` answers in milliseconds.
A stage sees its own model and no other; its JSON is part of the stage's fingerprint
(`pipeline.fingerprint`), so a changed value rebuilds exactly that stage and what follows it.
Thresholds and where they come from stand beside the fields.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.presets import RULE_NAMES

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(gt=0)]
StageName = Literal["extract", "language", "dedup", "quality", "tokenize"]
STAGES: tuple[StageName, ...] = ("extract", "language", "dedup", "quality", "tokenize")


class Model(BaseModel):
    """Frozen pydantic model in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Model):
    """Where raw documents come from. `paths` are globs; anything fsspec opens will do."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    type: Literal["warc", "html", "text", "markdown", "jsonl", "parquet", "hf"]
    paths: Annotated[list[str], Field(min_length=1)] = Field(
        description="globs relative to the recipe's folder, or fsspec URLs; for `hf`: dataset names"
    )
    weight: Annotated[float, Field(gt=0)] = Field(
        1.0, description="share of this source in training, relative to its tokens (1 = as it comes)"
    )
    limit: Count | None = Field(None, description="documents read from each of this source's files, at most")
    text_key: str = Field("text", description="field that holds the text (jsonl, parquet, hf)")
    id_key: str | None = Field(None, description="field that names the document in reports (jsonl, parquet, hf)")
    url_key: str | None = Field("url", description="field that holds the address (jsonl, parquet, hf)")
    split: str = Field("train", description="split of a Hugging Face dataset (hf)")
    license: str | None = Field(None, description="license of the source, for the model card")


class ExtractConfig(Model):
    """HTML to main text."""

    extractor: Literal["fast", "resiliparse", "trafilatura", "none"] = "fast"
    media_types: list[str] = Field(
        ["text/html", "application/xhtml+xml", "text/plain"],
        description="media types read; others are dropped",
    )
    statuses: list[int] = Field([200], description="HTTP status codes kept")
    max_bytes: Count = Field(10_000_000, description="largest decoded page in bytes; larger ones are dropped")
    min_characters: Annotated[int, Field(ge=0)] = Field(
        1, description="shortest extracted text in characters; shorter ones are dropped as `empty_text`"
    )
    blocklist: list[str] = Field([], description="files with one domain or URL prefix a line to drop")
    task_bytes: Count = Field(
        4_000_000, description="stored bytes of input per task; tasks follow from this and the inputs alone"
    )


class LanguageConfig(Model):
    """fastText language identification."""

    model: str | None = Field(None, description="path of a fastText model; default: lid.176 looked up locally")
    keep: list[str] | None = Field(None, description="ISO 639 codes kept; default: every language")
    threshold: Fraction = Field(0.65, description="lowest score kept (FineWeb, DCLM, Dolma 3: 0.65)")
    thresholds: dict[str, Fraction] = Field({}, description="threshold of single languages, e.g. {fr: 0.824}")


class DedupConfig(Model):
    """Exact, then MinHash-LSH near-duplicates, verified pair by pair."""

    exact: bool = Field(True, description="drop documents whose text is the same but for case and white space")
    minhash: bool = Field(True, description="drop near-duplicates")
    bands: Count = Field(14, description="LSH bands (FineWeb: 14)")
    rows: Count = Field(8, description="hashes per band (FineWeb: 8)")
    ngram: Count = Field(5, description="words per shingle (FineWeb: 5)")
    threshold: Fraction | None = Field(
        None,
        description="Jaccard similarity to detect; datasketch's optimizer then picks bands and rows"
        " within bands x rows hashes",
    )
    verify: Fraction = Field(0.75, description="lowest Jaccard similarity at which a candidate pair counts")
    verify_by: Literal["estimate", "exact"] = Field(
        "estimate", description="similarity from the signatures, or exact over sets of shingles (more disk, slower)"
    )
    survivor: Literal["first", "longest", "newest"] = Field("first", description="which document of a cluster stays")
    scope: Literal["global", "source", "language"] = Field(
        "global", description="documents are duplicates only of others of the same source or language"
    )
    against: list[str] = Field(
        [], description="run folders of earlier corpora; documents that they hold are dropped here"
    )
    line_documents: Annotated[int, Field(ge=2)] | None = Field(
        None, description="cut a line that stands in this many kept documents of a site from all of them but one"
    )
    rehydrate: dict[Count, Count] = Field(
        {},
        description="smallest cluster size to the number of times a survivor is to be seen (column `repeat`),"
        " e.g. FineWeb-2's {1: 1, 2: 2, 3: 3, 5: 5, 100: 8, 1000: 1}; without it, once",
    )
    partition_bytes: Count = Field(
        64_000_000, description="memory of one join task, about; fixes the number of join tasks"
    )

    @model_validator(mode="after")
    def _indexes_hold_signatures(self) -> Self:
        if self.against and self.verify_by == "exact":
            raise ValueError("`against` needs `verify_by: estimate`: an earlier corpus's index holds signatures alone")
        return self


class Rule(Model):
    """Override of one quality rule: another threshold, or off."""

    threshold: float | None = None
    enabled: bool = True


class QualityConfig(Model):
    """Signals are computed once and kept as columns; rules are thresholds on them."""

    presets: list[Literal["gopher", "c4", "fineweb"]] = ["gopher", "c4", "fineweb"]
    rules: dict[str, float | bool | Rule] = Field(
        {}, description="rule name to threshold, false (off) or {threshold, enabled}"
    )
    languages: dict[str, dict[str, float | bool | Rule]] = Field(
        {}, description="per-language overrides, e.g. {ja: {gopher_stop_words: false}}"
    )
    label_only: bool = Field(False, description="keep every document and only write the columns")

    @model_validator(mode="after")
    def _rules_exist(self) -> Self:
        for name in (*self.rules, *(name for rules in self.languages.values() for name in rules)):
            if name not in RULE_NAMES:
                close = get_close_matches(name, sorted(RULE_NAMES), n=1, cutoff=0.5)
                hint = f", did you mean `{close[0]}`?" if close else ""
                raise ValueError(f"no quality rule is called `{name}`{hint}")
        return self


class TokenizerConfig(Model):
    """A byte-level BPE trained on the corpus, or an existing tokenizer.json."""

    path: str | None = Field(None, description="an existing tokenizer.json; nothing is trained then")
    vocab_size: Annotated[int, Field(ge=257, le=1_000_000)] = 32_000
    pattern: Literal["gpt2", "cl100k"] = Field("cl100k", description="pre-tokenizer pattern")
    sample_bytes: Count = Field(200_000_000, description="bytes of text to train on, a deterministic sample")


class TokenizeConfig(Model):
    """Text to packed sequences in MDS shards."""

    tokenizer: TokenizerConfig = TokenizerConfig()
    sequence_length: Count = 1024
    packing: Literal["concat", "best_fit"] = "concat"
    validation: Fraction = Field(0.01, description="share of documents (by duplicate cluster) held out")
    stream_by: Literal["source", "language", "source-language"] = "source"
    compression: str | None = Field("zstd", description="shard compression, as MDSWriter spells it; null for none")
    shard_bytes: Count = Field(64_000_000, description="largest shard in bytes before compression")
    bucket_bytes: Count = Field(
        256_000_000, description="text bytes shuffled in memory at once; fixes the number of shuffle tasks"
    )


class ExecutorConfig(Model):
    """Where tasks run. Never part of a fingerprint: the shards do not depend on it."""

    type: Literal["local"] = "local"
    workers: Count | None = Field(None, description="processes; default: the machine's cores")


class CorpusConfig(Model):
    """A corpus: sources, the order of its stages, and each stage's settings."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    sources: Annotated[list[Source], Field(min_length=1)]
    stages: list[StageName] = list(STAGES)
    extract: ExtractConfig = ExtractConfig()
    language: LanguageConfig = LanguageConfig()
    dedup: DedupConfig = DedupConfig()
    quality: QualityConfig = QualityConfig()
    tokenize: TokenizeConfig = TokenizeConfig()
    executor: ExecutorConfig = ExecutorConfig()
    truth: str | None = Field(
        None, description="JSON lines of labelled documents; the run prints precision and recall per stage"
    )

    @model_validator(mode="after")
    def _stages_make_sense(self) -> Self:
        if self.stages[:1] != ["extract"]:
            raise ValueError("`stages` must begin with `extract`, which reads the sources")
        if len(set(self.stages)) != len(self.stages):
            raise ValueError("`stages` names a stage twice")
        if "tokenize" in self.stages[:-1]:
            raise ValueError("`tokenize` must be the last of `stages`: it turns text into shards")
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            raise ValueError("two `sources` have the same name; documents are named by it")
        return self
