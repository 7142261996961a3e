"""Rules on clear cases, the stage with everything on, its reuse of columns, and questions to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from common.errors import PipelineError
from pipeline.build import build_corpus
from pipeline.config import CorpusConfig, QualityConfig
from pipeline.kernels.signals.measure import SIGNALS, signals
from pipeline.quality import keep, rules
from pipeline.quality.edits import edit_lines
from pipeline.quality.presets import PRESETS
from pipeline.quality.rules import rules_for, score_cut
from pipeline.quality.spans import offending
from tests.conftest import PROSE

SPAM = "buy cheap shoes online now " * 60


def test_every_rule_reads_an_existing_signal() -> None:
    assert {rule.signal for rules in PRESETS.values() for rule in rules.values()} <= set(SIGNALS)


@pytest.mark.parametrize("preset", PRESETS)
def test_prose_is_kept(preset: str) -> None:
    assert keep(list(PROSE.values()), preset=preset) == [None, None, None]


def test_bad_texts_fail_the_rule_that_names_them() -> None:
    assert keep(["too short"], preset="gopher") == ["gopher_min_words"]
    assert keep([SPAM], preset="gopher")[0] in ("gopher_stop_words", "gopher_top_2gram")
    assert keep(["void f() { return; }"], preset="c4")[0] == "c4_sentences"
    assert keep([PROSE["fox"] + " {"], preset="c4") == ["c4_curly_brackets"]
    assert keep(["\n".join(["menu"] * 40)], preset="fineweb")[0] == "fineweb_line_punctuation"


@pytest.mark.parametrize("preset", PRESETS)
def test_decisions_are_datatroves(preset: str) -> None:
    """On texts that are cut, repeated and broken in many ways; spaCy's blank English tokenizer cuts the words."""
    pytest.importorskip("spacy")
    from datatrove.data import Document
    from datatrove.pipeline import filters

    peers = {
        "gopher": [filters.GopherRepetitionFilter(), filters.GopherQualityFilter()],
        "c4": [filters.C4QualityFilter(filter_no_terminal_punct=False)],
        "fineweb": [filters.FineWebQualityFilter(char_duplicates_ratio=0.1)],
    }[preset]
    prose = "\n".join(PROSE.values())
    sentences = prose.replace("\n", " ").split(". ")
    texts = [". ".join(sentences[i : i + n]) + "." for i in range(len(sentences)) for n in (2, 6, 12)]
    texts += [
        prose[:900] + "\n" + line * n for line in ("menu\n", "- a b\n", "so on...\n", "# x { y\n") for n in (3, 30)
    ]
    texts += [prose.replace(" ", "\n", n) for n in (5, 50, 100)] + [prose.replace("the ", "12 , ", n) for n in (9, 30)]
    expected = [all(peer.filter(Document(text=text, id="x")) is True for peer in peers) for text in texts]
    assert [rule is None for rule in keep(texts, preset=preset)] == expected
    assert 0 < sum(expected) < len(expected)


def test_overrides_and_languages() -> None:
    settings = QualityConfig(
        rules={"gopher_min_words": 10, "gopher_hashes": False, "gopher_alpha_only_words": True},
        languages={"fr": {"gopher_min_words": {"threshold": 20}}},
    )
    assert rules_for(settings, "en")["gopher_min_words"].threshold == 10
    assert rules_for(settings, "fr")["gopher_min_words"].threshold == 20
    assert "gopher_hashes" not in rules_for(settings, "en")
    assert "gopher_alpha_only_words" in rules_for(settings, "en")
    assert "gopher_alpha_only_words" not in rules_for(QualityConfig(), "en")
    assert "gopher_stop_words" in rules_for(settings, "fr")
    assert "gopher_stop_words" not in rules_for(settings, "xx")
    assert "gopher_stop_words" not in rules_for(settings, "ko")
    assert "gopher_min_word_length" not in rules_for(settings, "ja")


PROSE_WITHOUT_STOPS = {
    "th": "แม่น้ำสายนี้ไหลผ่านหมู่บ้านเล็ก ๆ ที่ชาวบ้านอยู่กันมานาน พวกเขาปลูกข้าวและจับปลา ในฤดูฝนน้ำจะขึ้นสูงจนถึงใต้ถุนบ้าน\n"
    "เด็ก ๆ พายเรือไปโรงเรียนทุกเช้า ครูใหญ่รออยู่ที่ท่าน้ำ และไม่มีใครเคยไปสาย ตอนเย็นผู้ใหญ่นั่งคุยกันบนสะพานไม้",
    "lo": "ແມ່ນ້ຳສາຍນີ້ໄຫຼຜ່ານບ້ານນ້ອຍ ທີ່ຊາວບ້ານຢູ່ກັນມາດົນນານ ພວກເຂົາປູກເຂົ້າ ແລະ ຫາປາ ໃນລະດູຝົນນ້ຳຈະຂຶ້ນສູງຈົນຮອດກ້ອງເຮືອນ\n"
    "ເດັກນ້ອຍພາຍເຮືອໄປໂຮງຮຽນທຸກເຊົ້າ ຄູໃຫຍ່ລໍຖ້າຢູ່ທ່ານ້ຳ ແລະ ບໍ່ມີໃຜເຄີຍໄປຊ້າ ຕອນແລງຜູ້ໃຫຍ່ນັ່ງລົມກັນຢູ່ຂົວໄມ້",
    "bo": "གཙང་པོ་འདི་གྲོང་གསེབ་ཆུང་ཆུང་ཞིག་གི་འགྲམ་ནས་རྒྱུག་གི་ཡོད། གྲོང་མི་ཚོས་ནས་འདེབས་པ་དང་ཉ་འཛིན་པ་བྱེད་ཀྱི་ཡོད།\n"
    "ཕྲུ་གུ་ཚོ་ཞོགས་པ་རྟག་པར་གྲུ་ནང་བསྡད་ནས་སློབ་གྲྭར་འགྲོ་གི་ཡོད། དགེ་རྒན་ནི་ཆུ་འགྲམ་དུ་སྒུག་ནས་བསྡད་ཡོད།",
    "my": "ဤမြစ်သည် ရွာငယ်လေးကို ဖြတ်၍ စီးဆင်းသည်။ ရွာသားများသည် စပါးစိုက်၍ ငါးဖမ်းကြသည်။ မိုးရာသီတွင် ရေသည် အိမ်အောက်သို့ ရောက်လာသည်။\n"
    "ကလေးများသည် နံနက်တိုင်း လှေဖြင့် ကျောင်းသို့ သွားကြသည်။ ဆရာကြီးသည် ဆိပ်ကမ်းတွင် စောင့်နေသည်။",
    "km": "ទន្លេនេះហូរកាត់ភូមិតូចមួយ ដែលអ្នកភូមិរស់នៅជាយូរមកហើយ។ ពួកគេដាំស្រូវ និងនេសាទត្រី។ នៅរដូវវស្សា ទឹកឡើងខ្ពស់ដល់ក្រោមផ្ទះ។\n"
    "ក្មេងៗជិះទូកទៅសាលារៀនរាល់ព្រឹក ហើយលោកគ្រូរង់ចាំនៅកំពង់ទឹក។ នៅពេលល្ងាច មនុស្សចាស់អង្គុយនិយាយគ្នាលើស្ពានឈើ។",
}


@pytest.mark.parametrize("language", list(PROSE_WITHOUT_STOPS))
def test_prose_without_full_stops_is_kept(language: str) -> None:
    text = PROSE_WITHOUT_STOPS[language]
    assert [keep([text], preset=preset, language=language) for preset in ("gopher", "fineweb")] == [[None], [None]]
    assert keep([text.split("\n")[0] * 9], preset="gopher", language=language) != [None]
    assert signals([text], language=language)["stop_words"][0] >= 2


def test_c4_sentences_are_asked_only_of_languages_that_mark_them() -> None:
    assert keep([PROSE_WITHOUT_STOPS["th"]], preset="c4", language="th") == [None]
    settings = QualityConfig(rules={"c4_sentences": 3}, languages={"lo": {"c4_sentences": True}})
    assert rules_for(settings, "th")["c4_sentences"].threshold == 3
    assert rules_for(settings, "lo")["c4_sentences"].threshold == 5
    assert rules_for(QualityConfig(), "fi")["gopher_alpha_words"].threshold < 0.8


def test_c4_line_edits_are_datatroves() -> None:
    from datatrove.data import Document
    from datatrove.pipeline.filters import C4QualityFilter

    pytest.importorskip("spacy")
    fox, river = (PROSE[name].replace("\n", " ") for name in ("fox", "river"))
    text = f"  {fox}[1] \nmenu\nAccept cookies? We use cookies here.\nNo end to this line\nAnd so on and on...\n"
    text += f"Needs JavaScript to run.\n{'x' * 1001} two three.\n\n{river}"
    assert edit_lines("东京是日本的首都。\n二" + "字" * 2000 + "\nmenu") == "东京是日本的首都。\n二" + "字" * 2000
    for terminal in (False, True):
        document = Document(text=text, id="x")
        assert C4QualityFilter(filter_no_terminal_punct=terminal).filter(document) is True
        assert edit_lines(text, terminal=terminal) == document.text


@pytest.mark.parametrize(("share", "cut"), [(1.0, 0.1), (0.5, 0.3), (0.25, 0.9), (0.001, 0.9)])
def test_score_cut(share: float, cut: float) -> None:
    assert score_cut(np.array([0.3, 0.1, 0.9, 0.2]), share) == cut


@pytest.mark.parametrize(
    ("text", "signal", "span"),
    [
        ("a b c d e x a b c d e", "duplicate_5gram", "a b c d e"),
        ("x the end y the end", "top_2gram", "the end"),
        ("one\nmenu item\ntwo\nmenu item", "duplicate_lines", "menu item"),
        ("call f(x) { y }", "c4_terminal_curly_brackets", "{"),
        ("so 1 2 3 4 go 5", "alpha_words", "1 2 3 4"),
    ],
)
def test_offending_span(text: str, signal: str, span: str) -> None:
    low, high = offending(text, signal)
    assert text[low:high] == span


def corpus(folder: Path, before: list[str], **quality: Any) -> CorpusConfig:
    """Prose with planted personal data, an evaluation question, spam and a stub."""
    rows = {
        **PROSE,
        "pii": PROSE["fox"] + " Write to jane@mail.org.",
        "leak": PROSE["river"] + " Which of the seven old bridges over the river was built first of them all?",
        "spam": SPAM,
        "stub": "too short",
    }
    lines = [json.dumps({"text": text, "id": name}) for name, text in rows.items()]
    (folder / "rows.jsonl").write_text("\n".join(lines), "utf-8")
    return CorpusConfig.model_validate(
        {
            "name": "test",
            "sources": [{"name": "rows", "type": "jsonl", "paths": ["rows.jsonl"], "id_key": "id"}],
            "stages": ["extract", *before, "quality"],
            "language": {"threshold": 0.0},
            "quality": quality,
            "executor": {"workers": 1},
        }
    )


def run(
    folder: Path, before: list[str] | None = None, **quality: Any
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """(kept, dropped) rows of the quality stage by the name in the source; `before`: stages before it."""
    build_corpus(corpus(folder, before or [], **quality), folder / "run", folder)
    stage = next((folder / "run/corpus").glob("[0-9]*-quality"))
    found = []
    for part in ("data", "dropped"):
        rows = pq.read_table(stage / part).to_pylist()
        found.append({row["url"]: row for row in rows})
    return found[0], found[1]


def test_the_stage_records_every_failing_rule_with_value_and_threshold(tmp_path: Path) -> None:
    kept, dropped = run(tmp_path)
    assert set(dropped) == {"spam", "stub"}
    stub = dropped["stub"]
    assert (stub["rule"], stub["value"], stub["threshold"]) == ("gopher_min_words", 2, 50)
    assert stub["detail"].startswith("gopher_min_words 2 < 50; gopher_stop_words 0 < 2; ")
    assert stub["failed_rules"].split()[:2] == ["gopher_min_words", "gopher_stop_words"]
    alone = signals([kept["fox"]["text"]])
    assert all(kept["fox"][name] == alone[name][0] for name in SIGNALS)


def test_label_only_keeps_everything(tmp_path: Path) -> None:
    kept, dropped = run(tmp_path, label_only=True, mask=["email"])
    assert not dropped
    assert "gopher_min_words" in kept["stub"]["failed_rules"]
    assert kept["fox"]["failed_rules"] == ""


def test_masking_decontamination_and_line_edits(tmp_path: Path) -> None:
    question = {"question": "Which of the seven OLD bridges over the river was built first, of them all?", "n": 3}
    (tmp_path / "eval.jsonl").write_text(json.dumps(question) + "\n")
    kept, dropped = run(tmp_path, mask=["email", "ip"], decontaminate={"files": ["eval.jsonl"]}, c4_lines="edit")
    assert "Write to email@example.com." in kept["pii"]["text"]
    assert (kept["pii"]["masked"], kept["fox"]["masked"]) == (1, 0)
    stats = json.loads((tmp_path / "run/corpus/02-quality/stats.json").read_text())
    assert stats["masked"] == {"email": 1, "ip": 0}
    leak = dropped["leak"]
    assert (leak["rule"], leak["threshold"]) == ("contamination", 0)
    assert "Which of the seven old bridges" in leak["detail"]
    with pytest.raises(PipelineError, match=r"quality.decontaminate.files: no file at"):
        run(tmp_path, decontaminate={"files": ["gone.jsonl"]})


def test_a_changed_threshold_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path)
    monkeypatch.setattr("pipeline.quality.stage.signals", lambda *_, **__: pytest.fail("measured again"))
    kept, dropped = run(tmp_path, rules={"gopher_min_words": 1})
    assert (first[1]["stub"]["rule"], dropped["stub"]["rule"]) == ("gopher_min_words", "gopher_stop_words")
    dropped |= kept
    assert all(dropped[name]["characters"] == row["characters"] for rows in first for name, row in rows.items())


def test_own_rules_and_unknown_signals(tmp_path: Path) -> None:
    rule = {"signal": "upper_ratio", "op": ">=", "threshold": 0.001}
    sure = {"signal": "language_score", "op": ">=", "threshold": 0.99}
    kept, dropped = run(tmp_path, ["language"], presets=[], own_rules={"capitals": rule, "sure": sure})
    assert {row["rule"] for row in dropped.values()} <= {"capitals", "sure"}
    assert "capitals" in dropped["stub"]["failed_rules"]
    assert all(row["language_score"] >= 0.99 for row in kept.values())
    with pytest.raises(PipelineError, match=r"quality.own_rules.capitals.signal: got `uper_ratio`"):
        run(tmp_path, own_rules={"capitals": rule | {"signal": "uper_ratio"}})


def test_explorer_counts_from_the_columns(tmp_path: Path) -> None:
    kept, dropped = run(tmp_path)
    columns = rules.load(tmp_path / "run/corpus/02-quality")
    found = rules.fails(QualityConfig(), columns)
    documents = len(columns.languages)
    assert documents == len(kept) + len(dropped)
    assert int(rules.kept(found, documents).sum()) == len(kept)
    rows = {row.name: row for row in rules.count(found, documents)}
    assert rows["gopher_min_words"] == rules.RuleCount("gopher_min_words", 1, 1, 0)
    assert sum(row.first for row in rows.values()) == len(dropped)
    loose = QualityConfig(presets=["gopher"], rules={"gopher_min_words": 1, "gopher_stop_words": False})
    assert int(rules.kept(rules.fails(loose, columns), documents).sum()) == len(kept)
    with pytest.raises(PipelineError, match="no column `edu_score`"):
        rules.fails(QualityConfig.model_validate({"models": {"edu": {"path": "x"}}}), columns)
