"""Language identification with the real model."""

from __future__ import annotations

import gzip
import hashlib
import threading
import unicodedata
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest

from common.errors import PipelineError
from pipeline.config import LanguageConfig
from pipeline.kernels.fasttext import empty_cache, predict
from pipeline.language import LanguageIdentifier, find_model, identify
from pipeline.language.identify import SURE, WINDOW, WINDOWS, normalize_label, read_model, sample, usual_form
from pipeline.language.stage import LanguagePass
from pipeline.stage import Build
from tests.conftest import PROSE

SENTENCES = {
    "de": "Der Fluss entspringt in einem Moor oberhalb des Dorfes und ist anfangs kaum breiter als ein Schritt.",
    "fr": "La rivière prend sa source dans une tourbière au-dessus du village et n'est guère plus large qu'un pas.",
    "ru": "Река берёт начало в болоте над деревней и поначалу не шире одного шага.",
    "ja": "川は村の上の湿原から流れ出て、はじめは一歩の幅ほどしかない。",
    "en": PROSE["river"],
}
# A sentence of its own in each, as people write it.
OTHERS = {
    "pl": "Stary młyn nad rzeką od dawna stoi pusty, ale dzieci wciąż chodzą tam łowić ryby i słuchać żab.",
    "nl": "De oude molen aan de rivier staat al jaren leeg, maar de kinderen gaan er nog steeds vissen.",
    "cs": "Starý mlýn u řeky už dávno stojí prázdný, ale děti tam pořád chodí chytat ryby a poslouchat žáby.",
    "lt": "Senas malūnas prie upės jau seniai stovi tuščias, bet vaikai vis dar eina ten žvejoti ir klausytis varlių.",
    "tr": "Irmağın kıyısındaki eski değirmen yıllardır boş duruyor, ama çocuklar hâlâ orada balık tutuyor.",
    "ko": "강가의 오래된 방앗간은 오래전부터 비어 있지만 아이들은 지금도 그곳에서 물고기를 잡는다.",
    "vi": "Cối xay cũ bên bờ sông đã bỏ trống từ lâu, nhưng trẻ con vẫn đến đó câu cá và nghe ếch kêu.",
    "ru": "Старая мельница у реки давно стоит пустая, но дети всё ещё ходят туда ловить рыбу.",
    "el": "Ο παλιός μύλος δίπλα στο ποτάμι είναι άδειος εδώ και χρόνια, αλλά τα παιδιά πηγαίνουν ακόμα εκεί.",
}


def test_names_languages() -> None:
    found = LanguageIdentifier().identify(list(SENTENCES.values()))
    assert [language for language, _ in found] == list(SENTENCES)
    assert all(0.5 < score <= 1.0 for _, score in found)


@pytest.mark.parametrize(
    ("settings", "quantized"),
    [
        ({"loss": "hs", "minn": 2, "maxn": 4}, True),
        ({"loss": "softmax", "minn": 0, "maxn": 0, "wordNgrams": 3}, False),
        ({"loss": "ova", "minn": 1, "maxn": 3, "wordNgrams": 2}, True),
        ({"loss": "ns", "minn": 3, "maxn": 6}, False),
    ],
)
def test_kernel_decides_as_fasttext(tmp_path: Path, settings: dict[str, object], quantized: bool) -> None:
    """Models of each loss and form, trained here: label and score of fastText's own predict, and all labels' scores."""
    fasttext = pytest.importorskip("fasttext")
    rows = [(language, " ".join(words)) for language, sentence in SENTENCES.items() for words in _cuts(sentence)]
    (tmp_path / "train").write_text("\n".join(f"__label__{name} {text}" for name, text in rows), "utf-8")
    trained = fasttext.train_supervised(
        str(tmp_path / "train"), bucket=5000, dim=10, epoch=5, thread=1, minCount=1, verbose=0, **settings
    )
    if quantized:
        trained.quantize(str(tmp_path / "train"), cutoff=900, retrain=False, qnorm=True, dsub=4, verbose=0)
    trained.save_model(str(tmp_path / "model"))
    peer = fasttext.FastText._FastText(str(tmp_path / "model")).f
    network, labels = read_model(tmp_path / "model")
    texts = [text for _, text in rows] + [
        "",
        "__label__de x",
        "é\u3000\u00a0 ü\t\nß",
        "a\0b",
        "nothing known: zyxwv",
    ]
    for text, label, score in zip(texts, *predict(network, empty_cache(network), texts), strict=True):
        ((expected, name),) = peer.predict(text.replace("\n", " ") + "\n", 1, 0.0, "strict")
        assert (labels[label], score) == (name, pytest.approx(min(expected, 1.0), abs=2e-4)), text
    theirs = [{name: min(score, 1.0) for score, name in peer.predict(text.replace("\n", " ") + "\n", -1, 0.0, "strict")}
              for text in texts]  # fmt: skip
    for number, name in enumerate(labels):
        _, scores = predict(network, empty_cache(network), texts, number)
        assert scores == pytest.approx([row.get(name, 0.0) for row in theirs], abs=2e-4), name


def _cuts(sentence: str) -> list[list[str]]:
    words = sentence.split() if " " in sentence else list(sentence)
    return [words[start : start + 6] for start in range(0, len(words), 3)] * 4


def test_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    whole = find_model().read_bytes()
    for data, reason in ((b"", "empty"), (b"no model" * 99, "magic"), (whole[:2000], "cut off"), (whole[:-100], "")):
        (tmp_path / "bad.ftz").write_bytes(data)
        with pytest.raises(PipelineError, match=f"bad.ftz: no fastText classifier.*{reason}"):
            LanguageIdentifier(tmp_path / "bad.ftz")


def full_width(text: str) -> str:
    return "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in text).replace(" ", "\u3000")


@pytest.mark.parametrize("language", list(OTHERS))
def test_form_of_a_text_does_not_change_its_language(language: str) -> None:
    text = OTHERS[language]
    forms = [text, text.upper(), unicodedata.normalize("NFD", text), unicodedata.normalize("NFD", text.upper())]
    found = LanguageIdentifier().identify([*forms, full_width(text), *(form * 30 for form in forms)])
    assert {name for name, _ in found} == {language}
    assert min(score for _, score in found) >= 0.6


def test_usual_texts_are_asked_about_as_they_are() -> None:
    texts = ["NATO and the EU met in Paris.", "価格は１００円（税込）です。", "Straße", "", *SENTENCES.values()]
    assert [usual_form(text) for text in texts] == texts
    assert usual_form("ｶﾞｲﾄﾞ　ＡＢ，ｃ") == "ガイド AB,c"
    assert usual_form("İSTANBUL IĞDIR").startswith("istanbul")


def test_nothing_to_judge() -> None:
    assert all(score <= 1.0 for _, score in LanguageIdentifier().identify(["", "\n", "12345"]))


def test_long_texts_are_sampled() -> None:
    assert len(sample("a b " * 100_000)) <= WINDOW * WINDOWS + WINDOWS
    text = PROSE["river"] * 50
    assert LanguageIdentifier().identify([text])[0] == LanguageIdentifier().identify([sample(text)])[0]


def test_unsure_samples_fall_back_to_the_whole() -> None:
    """Half of the windows fall into German and French, but nearly all of the text is English."""
    german, french, english = SENTENCES["de"] * 3, SENTENCES["fr"] * 3, " ".join(PROSE.values()) * 3
    text = german[:WINDOW] + english + french[-WINDOW:]
    ((_, sampled), (language, score)) = LanguageIdentifier().identify([sample(text)[: WINDOW * WINDOWS], text])
    assert sampled < SURE <= score
    assert language == "en"


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("__label__en", ("en", None)),
        ("__label__deu_Latn", ("de", "Latn")),
        ("__label__cmn_Hani", ("zh", "Hani")),
        ("__label__arb_Arab", ("ar", "Arab")),
        ("__label__arz", ("arz", None)),
        ("__label__swh_Latn", ("sw", "Latn")),
    ],
)
def test_labels(label: str, expected: tuple[str, str | None]) -> None:
    assert normalize_label(label) == expected


def language_pass(tmp_path: Path, **settings: object) -> LanguagePass:
    return LanguagePass(Build(LanguageConfig.model_validate(settings), (), 1, tmp_path, (), tmp_path, "x"))


def test_thresholds_wanted_languages_and_mixed_texts(tmp_path: Path) -> None:
    mixed = "\n\n".join([PROSE["river"].replace("\n", " "), SENTENCES["de"] * 4, SENTENCES["fr"] * 4])
    texts = [SENTENCES["en"], SENTENCES["de"], SENTENCES["ru"], mixed]
    table = pa.table({"text": texts, "id": list("abcd")})
    settings = {"keep": ["en", "fr", "ru"], "thresholds": {"ru": 1.0}, "threshold": 0.2, "mixed": 0.7}
    judged, verdicts = language_pass(tmp_path, **settings).open(0).judge(table)
    assert [verdict and verdict.rule for verdict in verdicts] == [
        None,
        "language_unwanted",
        "language_score",
        "language_mixed",
    ]
    assert verdicts[3].value < 0.7
    assert judged["language"].to_pylist()[:3] == ["en", "de", "ru"]


def test_absent_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no file at"):
        find_model(tmp_path / "missing.ftz")


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without a log."""

    def log_message(self, *arguments: object) -> None: ...


def test_download_is_verified_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served/lid.176.ftz").write_bytes(b"a model")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(identify, "find_spec", lambda name: None)
    monkeypatch.setattr(identify, "OFFICIAL_URL", f"http://127.0.0.1:{server.server_port}/lid.176.ftz")
    with pytest.raises(PipelineError, match="sha256"):
        find_model()
    monkeypatch.setattr(identify, "OFFICIAL_SHA256", hashlib.sha256(b"a model").hexdigest())
    assert find_model() == tmp_path / "cache/pretrain/lid.176.ftz"
    server.shutdown()
    server.server_close()
    assert find_model().read_bytes() == b"a model"  # from the cache


def test_ud_pud(shared: Path) -> None:
    with gzip.open(shared / "eval/lid/ud-pud.tsv.gz", "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t", 1) for line in file]
    found = LanguageIdentifier().identify([text for _, text in rows])
    right = sum(normalize_label(truth)[0] == language for (truth, _), (language, _) in zip(rows, found, strict=True))
    assert right / len(rows) >= 0.975
