"""Typed, frozen configuration of a corpus: one model per stage, every default filled in.

Nothing here reads a file or imports a heavy library, so `pretrain check` answers in milliseconds. A stage sees its own
model and no other; its JSON is part of the stage's fingerprint (`pipeline.fingerprint`), so a changed value rebuilds
that stage and those after it. The sources of published thresholds are in the fields' descriptions.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.quality.presets import RULE_NAMES

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(gt=0)]
StageName = Literal["extract", "language", "dedup", "quality", "tokenize"]
STAGES: tuple[StageName, ...] = ("extract", "language", "dedup", "quality", "tokenize")


class Model(BaseModel):
    """Frozen pydantic model in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Select(Model):
    """Records of a crawl, by its index. What is given must hold."""

    hosts: list[str] = Field([], description="hosts, with all below them: `example.org` takes `docs.example.org`, too")
    languages: list[str] = Field([], description="ISO 639-3 codes; the language that the crawl's index names first")
    media_types: list[str] = Field([], description="media types as the crawl detected them, e.g. text/html")


class Fetch(Model):
    """How a crawl's files are fetched. Decides no byte of the corpus."""

    server: Annotated[str, Field(pattern=r"^(https?|s3)://")] = Field(
        "https://data.commoncrawl.org", description="address of the crawls; s3://commoncrawl from inside AWS"
    )
    store: str = Field("commoncrawl", description="folder for what was fetched, relative to the recipe's folder")
    keep: bool = Field(False, description="keep whole archives, about 1 GB each, after they are read")
    parallel: Annotated[int, Field(ge=1, le=16)] = Field(
        2, description="requests at a time, of all processes that share the store"
    )
    contact: str | None = Field(None, description="your address, sent along so that somebody can write to you")


class Source(Model):
    """Raw documents to read. `paths` are globs; anything fsspec opens will do."""

    name: Name
    type: Literal["warc", "html", "text", "markdown", "jsonl", "parquet", "hf", "commoncrawl"]
    paths: Annotated[list[str], Field(min_length=1)] = Field(
        description="globs relative to the recipe's folder, or fsspec URLs; for `hf`: dataset names or folders;"
        " for `commoncrawl`: patterns on the crawl's list of archives, or with `select` of index files"
    )
    crawl: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")] | None = Field(
        None, description="name of the crawl, e.g. CC-MAIN-2026-21 (commoncrawl)"
    )
    select: Select | None = Field(
        None, description="single records by the crawl's index; default: whole archives (commoncrawl)"
    )
    fetch: Fetch = Field(Fetch(), description="server, store and manners (commoncrawl)")
    weight: Annotated[float, Field(gt=0)] = Field(
        1.0, description="share of this source in training, relative to its tokens (1 = as it comes)"
    )
    repeat: Annotated[float, Field(gt=0)] = Field(
        1.0, description="how often this source is read per pass over a source with `repeat: 1`; multiplies `weight`"
    )
    limit: Count | None = Field(None, description="documents read from each of this source's files, at most")
    sample: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="share of the documents read, chosen by a hash of file and offset"
    )
    text_key: str = Field("text", description="field that holds the text (jsonl, parquet, hf)")
    id_key: str | None = Field(None, description="field that names the document in reports (jsonl, parquet, hf)")
    url_key: str | None = Field("url", description="field that holds the address (jsonl, parquet, hf)")
    columns: list[str] | None = Field(
        None, description="other fields kept in `metadata` (jsonl, parquet, hf); default: all"
    )
    split: str = Field("train", description="split of a Hugging Face dataset (hf)")
    license: str | None = Field(None, description="license of the source, for the model card")

    @model_validator(mode="after")
    def _crawl_is_named(self) -> Self:
        if (self.type == "commoncrawl") != (self.crawl is not None):
            raise ValueError("`crawl` and `type: commoncrawl` go together")
        if self.select and self.type != "commoncrawl":
            raise ValueError("`select` needs `type: commoncrawl`")
        return self


class ExtractConfig(Model):
    """HTML to main text."""

    extractor: Literal["fast", "resiliparse", "trafilatura", "none"] = "fast"
    format: Literal["text", "markdown"] = Field(
        "text", description="markdown keeps headings, lists, quotes, tables, code and formulas as such"
    )
    keep: list[Literal["links", "images"]] = Field(
        [], description="with markdown: the targets of links, images with their alternative texts"
    )
    comments: Literal["drop", "keep"] = Field(
        "drop", description="readers' comments below a page's main text; a forum's posts are main text"
    )
    authors: Literal["auto", "drop", "keep"] = Field(
        "auto", description="lines that name author and time of a post or comment; auto: those that the model chooses"
    )
    media_types: list[str] = Field(
        ["text/html", "application/xhtml+xml", "text/plain"], description="media types read; others are dropped"
    )
    statuses: list[int] = Field([200], description="HTTP status codes kept")
    max_bytes: Count = Field(10_000_000, description="largest decoded page in bytes; larger ones are dropped")
    min_characters: Annotated[int, Field(ge=0)] = Field(
        1, description="shortest extracted text in characters; shorter ones are dropped as `empty_text`"
    )
    blocklist: list[str] = Field(
        [], description="files with one domain or URL prefix a line to drop, or folders in UT1's layout"
    )
    allowlist: list[str] = Field(
        [], description="files of the same form; if there are any, only what they list is kept"
    )
    url_words: list[str] = Field([], description="files with one word a line; addresses that contain one are dropped")
    isolate_seconds: Annotated[float, Field(gt=0)] | None = Field(
        None, description="extract in a child process; a page that takes it longer, or ends it, is dropped"
    )
    domain_limit: Count | None = Field(None, description="documents kept of each domain, the first ones; default: all")
    task_bytes: Count = Field(
        4_000_000, description="stored bytes of input per task; tasks follow from this and the inputs alone"
    )

    @model_validator(mode="after")
    def _can_write(self) -> Self:
        if self.format == "markdown" and self.extractor in ("resiliparse", "none"):
            raise ValueError("`format: markdown` takes `extractor: fast` or `extractor: trafilatura`")
        if self.keep and self.format == "text":
            raise ValueError("`keep` takes `format: markdown`: text has no links and images")
        if self.authors != "auto" and self.extractor != "fast":
            raise ValueError(f"`authors: {self.authors}` takes `extractor: fast`")
        return self


class LanguageConfig(Model):
    """fastText language identification."""

    model: str | None = Field(None, description="path of a fastText model; default: lid.176 looked up locally")
    keep: list[str] | None = Field(None, description="ISO 639 codes kept; default: every language")
    threshold: Fraction = Field(0.65, description="lowest score kept (FineWeb, DCLM, Dolma 3: 0.65)")
    thresholds: dict[str, Fraction] = Field({}, description="threshold of single languages, e.g. {fr: 0.824}")
    mixed: Fraction | None = Field(
        None,
        description="drop a document whose main language covers less than this share of its paragraphs (by length);"
        " default: no check",
    )


class Substrings(Model):
    """Cut passages that occur more than once, across documents and within one."""

    min_bytes: Annotated[int, Field(ge=8)] = Field(
        500, description="shortest passage that is cut, in UTF-8 bytes (Dolma 3: 500; Lee et al. 2021: 50 tokens)"
    )
    keep: Literal["one", "none"] = Field(
        "one", description="one: the first copy stays; none: every copy is cut that does not overlap another"
    )


class DedupConfig(Model):
    """Exact, then MinHash-LSH near-duplicates, verified pair by pair."""

    exact: bool = Field(True, description="drop documents whose text is the same but for case and white space")
    minhash: bool = Field(True, description="drop near-duplicates")
    bands: Count = Field(14, description="LSH bands (FineWeb: 14)")
    rows: Count = Field(8, description="hashes per band (FineWeb: 8)")
    ngram: Count = Field(5, description="words per shingle (FineWeb: 5)")
    candidates_at: Fraction | None = Field(
        None,
        description="choose `bands` and `rows`, within their product, so that pairs of this Jaccard similarity become"
        " candidates; default: as given",
    )
    verify: Fraction = Field(0.75, description="candidates below this Jaccard similarity are not duplicates")
    verify_by: Literal["estimate", "exact"] = Field(
        "exact",
        description="exact: Jaccard of the shingle sets, digits compared literally; estimate: from the MinHash"
        " signatures (half the disk, standard error 0.04)",
    )
    survivor: Literal["first", "longest", "newest"] = Field("first", description="which document of a cluster stays")
    scope: Literal["global", "source", "language"] = Field(
        "global", description="documents are duplicates only of others of the same source or language"
    )
    against: list[str] = Field(
        [], description="run folders of earlier corpora; documents that they hold are dropped here"
    )
    line_documents: Annotated[int, Field(ge=2)] | None = Field(
        None, description="cut a line that this many kept documents of a site share from all of them but one"
    )
    substrings: Substrings | None = Field(
        None, description="cut passages that kept documents share, byte for byte; default: none"
    )
    partition_bytes: Count = Field(
        64_000_000, description="memory of one join task, about; fixes the number of join tasks"
    )


class Rule(Model):
    """Override of one quality rule: another threshold, or off."""

    threshold: float | None = None
    enabled: bool = True


class OwnRule(Model):
    """A rule of the recipe's own on any signal: keep while `signal` is at least (>=) or at most (<=) `threshold`."""

    signal: str
    op: Literal[">=", "<="]
    threshold: float


class QualityModel(Model):
    """A fastText classifier; its score, 0 to 1, becomes the column `<name>_score`."""

    path: str = Field(description="fastText model, e.g. from `pretrain quality-model train`")
    label: str = Field("positive", description="the label whose probability is the score")
    threshold: Fraction | None = Field(None, description="lowest score kept; default: every document")
    keep: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None, description="share of the documents kept, the best of those that pass every other rule"
    )
    bins: list[Fraction] = Field([], description="edges of the bins in column `<name>_bin`, to mix by")

    @model_validator(mode="after")
    def _one_cut(self) -> Self:
        if self.threshold is not None and self.keep is not None:
            raise ValueError("give `threshold` or `keep`, not both")
        return self


class Decontamination(Model):
    """Drop documents that share word n-grams with evaluation files."""

    files: list[str] = Field([], description="jsonl (every text field of a row) or txt (every line), also .gz")
    ngram: Count = Field(13, description="words per n-gram (GPT-3, PaLM: 13)")


class QualityConfig(Model):
    """Signals are computed once and kept as columns; rules are thresholds on them."""

    presets: list[Literal["gopher", "c4", "fineweb"]] = ["gopher", "c4", "fineweb"]
    rules: dict[str, float | bool | Rule] = Field(
        {}, description="rule name to threshold, false (off) or {threshold, enabled}"
    )
    languages: dict[str, dict[str, float | bool | Rule]] = Field(
        {}, description="per-language overrides, e.g. {ja: {gopher_stop_words: false}}"
    )
    own_rules: dict[str, OwnRule] = Field({}, description="rules of your own, e.g. on `digit_ratio`")
    models: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], QualityModel] = Field(
        {}, description="classifiers whose scores become columns"
    )
    label_only: bool = Field(False, description="keep every document and only write the columns")
    c4_lines: Literal["keep", "edit", "edit_terminal"] = Field(
        "keep", description="delete the lines that C4 deletes from kept documents; `_terminal`: also unpunctuated ones"
    )
    mask: list[Literal["email", "ip", "phone", "iban"]] = Field(
        [], description="personal data replaced by placeholders in kept documents"
    )
    decontaminate: Decontamination = Decontamination()

    @model_validator(mode="after")
    def _rules_exist(self) -> Self:
        for name in (*self.rules, *(name for rules in self.languages.values() for name in rules)):
            if name not in RULE_NAMES:
                close = get_close_matches(name, sorted(RULE_NAMES), n=1, cutoff=0.5)
                hint = f", did you mean `{close[0]}`?" if close else ""
                raise ValueError(f"no quality rule is called `{name}`{hint}")
        if taken := sorted(RULE_NAMES & self.own_rules.keys()):
            raise ValueError(f"`{taken[0]}` is a preset's rule; set its threshold under `rules`")
        return self


class TokenizerConfig(Model):
    """A byte-level BPE trained on the corpus, or an existing tokenizer.json."""

    path: str | None = Field(None, description="an existing tokenizer.json; nothing is trained then")
    vocab_size: Annotated[int, Field(ge=257, le=1_000_000)] = 32_000
    pattern: Literal["gpt2", "cl100k"] = Field("cl100k", description="pre-tokenizer pattern (cl100k is Llama 3's, too)")
    digits: Annotated[int, Field(ge=0, le=9)] | None = Field(
        None, description="most digits in a token, 0 for any number; default: the pattern's own (gpt2 any, cl100k 3)"
    )
    special_tokens: Annotated[list[str], Field(min_length=1)] = Field(
        ["<|endoftext|>"], description="get the first ids; the first one ends documents unless `eos` says otherwise"
    )
    sample_bytes: Count = Field(200_000_000, description="bytes of text to train on, a deterministic sample")
    languages: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {}, description="factor on a language's share of the sample, e.g. {de: 2.0}; 1 where none is given"
    )


class Phase(Model):
    """Other weights from a point of the run on, e.g. for annealing."""

    start: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="share of the run's steps after which it begins; 0: in place of the sources' weights"
    )
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        description="source or stream name to weight in this phase (0 leaves it out); others keep their weight"
    )


class TokenizeConfig(Model):
    """Text to packed sequences in MDS shards, and the mixture of training."""

    tokenizer: TokenizerConfig = TokenizerConfig()
    eos: str | None = Field(None, description="token that ends documents; default: <|endoftext|>, </s> or the like")
    bos: str | None = Field(None, description="token put before documents; default: none")
    sequence_length: Count = 1024
    packing: Literal["concat", "best_fit"] = Field(
        "concat", description="concat: no padding, documents cut anywhere; best_fit: only longer ones are cut"
    )
    validation: Fraction = Field(0.01, description="share of documents (by duplicate cluster) held out")
    stream_by: Literal["source", "language", "source-language"] = "source"
    rehydrate: dict[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = Field(
        None,
        description="copies of a training document by size of its duplicate cluster, each from a size on;"
        " FineWeb-2: {1: 1, 2: 2, 3: 3, 5: 5, 100: 8, 1000: 1}",
    )
    phases: list[Phase] = Field([], description="later phases of the mixture; the first has the sources' weights")
    compression: Annotated[str, Field(pattern=r"^(zstd|br|bz2|gz)(:[0-9]+)?$|^snappy$")] | None = Field(
        "zstd",
        description="shard compression as MDSWriter spells it: zstd, br, bz2 or gz, with :LEVEL, or snappy; null",
    )
    hashes: list[Literal["md5", "sha1", "sha256", "sha512", "xxh32", "xxh64", "xxh128", "xxh3_64", "xxh3_128"]] = Field(
        ["xxh64"], description="hashes of each shard in index.json"
    )
    shard_bytes: Count = Field(64_000_000, description="largest shard in bytes before compression")
    bucket_bytes: Count = Field(
        256_000_000, description="text bytes shuffled in memory at once; fixes the number of shuffle tasks"
    )

    @model_validator(mode="after")
    def _phases_in_order(self) -> Self:
        starts = [phase.start for phase in self.phases]
        if sorted(set(starts)) != starts:
            raise ValueError(f"`phases` must begin one after the other; they start at {starts}")
        return self


# Text that is safe in a batch script: nothing that a shell would interpret.
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/+-]*$")]


class OwnStage(Model):
    """A stage of your own code: a function, or a datatrove `PipelineStep`, in a Python file."""

    use: Annotated[str, Field(pattern=r"^[^:]+\.py:[A-Za-z][A-Za-z0-9_]*$")] = Field(
        description="FILE.py:NAME, the file relative to the recipe's folder, e.g. my_filters.py:keep_recipes"
    )

    @property
    def name(self) -> str:
        """Name of the stage: that of the function or step."""
        return self.use.rpartition(":")[2]

    @property
    def file(self) -> str:
        return self.use.rpartition(":")[0]


class SlurmConfig(Model):
    """Resources of each task of a Slurm array job."""

    partition: Word
    time: Word = Field("24:00:00", description="time limit of a task, e.g. 04:00:00")
    cpus: Count = 1
    memory_gb: Annotated[float, Field(gt=0)] = Field(4.0, description="memory of a task in GiB")
    array_size: Count = Field(1000, description="largest array job; more tasks become several jobs")
    qos: Word | None = None
    account: Word | None = None
    env: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = Field(
        {}, description="environment variables of each task"
    )


class RayConfig(Model):
    """Resources of each Ray task."""

    address: Word | None = Field(None, description="address of the cluster; default: RAY_ADDRESS, or one started here")
    cpus: Count = 1
    memory_gb: Annotated[float, Field(gt=0)] = Field(2.0, description="memory of a task in GiB")


class ExecutorConfig(Model):
    """Machines that run the tasks. Never part of a fingerprint: the shards do not depend on it."""

    type: Literal["local", "slurm", "ray"] = "local"
    workers: Count | None = Field(
        None, description="tasks at a time; default: the machine's cores (local), no limit (slurm, ray)"
    )
    retries: Annotated[int, Field(ge=0)] = Field(
        2, description="how often a task that ended without a result is started again"
    )
    max_failures: Annotated[int, Field(ge=0)] = Field(
        0,
        description="documents per stage that may be dropped by rule `crashed`, because they crash their worker process"
        " on every attempt; default: the stage stops and names the document",
    )
    memory_gb: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="memory limit of a task in GiB, on top of what the worker process already uses (Linux only); a task"
        " that exceeds it fails; default: no limit",
    )
    slurm: SlurmConfig | None = None
    ray: RayConfig = RayConfig()

    @model_validator(mode="after")
    def _slurm_has_a_partition(self) -> Self:
        if self.type == "slurm" and self.slurm is None:
            raise ValueError("`type: slurm` needs `slurm: {partition: ...}`")
        return self


class CorpusConfig(Model):
    """A corpus: sources, the order of its stages, and each stage's settings."""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    sources: Annotated[list[Source], Field(min_length=1)]
    stages: list[StageName | OwnStage] = list(STAGES)
    allow_code: bool = Field(
        False, description="load the Python files that `stages` names with `use`; they run with your rights"
    )
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
        names = self.stage_names
        if names[:1] != ["extract"]:
            raise ValueError("`stages` must begin with `extract`, which reads the sources")
        if len(set(names)) != len(names):
            raise ValueError("`stages` names a stage twice")
        if "tokenize" in names[:-1]:
            raise ValueError("`tokenize` must be the last of `stages`: it turns text into shards")
        own = [stage for stage in self.stages if isinstance(stage, OwnStage)]
        if own and not self.allow_code:
            raise ValueError(
                f"`stages` uses code of your own ({own[0].use}), which runs with your rights and may do anything;"
                " read the file, then set `allow_code: true`"
            )
        if taken := [stage.use for stage in own if stage.name in STAGES]:
            raise ValueError(f"`stages` uses {taken[0]}, but that is the name of another stage; rename the function")
        sources = [source.name for source in self.sources]
        if len(set(sources)) != len(sources):
            raise ValueError("two `sources` have the same name; documents are named by it")
        return self

    @property
    def stage_names(self) -> list[str]:
        """Names of the stages in order; of a stage of the recipe's own code the function's name."""
        return [stage.name if isinstance(stage, OwnStage) else stage for stage in self.stages]

    def settings(self, name: str) -> Model:
        """Settings of a stage of the recipe."""
        chosen = self.stages[self.stage_names.index(name)]
        settings: Model = chosen if isinstance(chosen, OwnStage) else getattr(self, chosen)
        return settings
