"""Planted overlaps with evaluation texts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from common.errors import PipelineError
from pipeline.quality.contamination import Contamination, read_evaluations

QUESTION = "Which of the seven old bridges over the river was built first of them all"


def test_an_overlap_of_n_words_is_found_and_one_less_is_not() -> None:
    known = Contamination([QUESTION], 13)
    words = QUESTION.split()
    assert known.find([" ".join(words[:13])]) == [(1, " ".join(words[:13]))]
    assert known.find([" ".join(words[:12]) + " bank"]) == [(0, "")]
    assert known.find([f"He asked: {QUESTION}? Nobody knew."])[0][0] == len(words) - 12
    assert known.find(["", "other words"]) == [(0, ""), (0, "")]


def test_case_accents_and_signs_do_not_hide_it() -> None:
    known = Contamination(["Où est la vieille maison rouge"], 6)
    assert known.find(["ou EST, la vieille-maison (rouge)!"])[0][0] == 1
    assert Contamination(["东京是日本的首都"], 4).find(["因为东京是日本的首都。"]) == [(1, "东京是日本的首都")]


@pytest.mark.parametrize(
    ("question", "text"),
    [
        (
            "コンピュータアーキテクチャの説明として正しいものはどれか。",
            "大学でコンピュータアーキテクチャを教えています。",
        ),
        ("インターネットサービスプロバイダとは何か。", "インターネットサービスプロバイダを変えました。"),
        ("สหราชอาณาจักรบริเตนใหญ่มีเมืองหลวงชื่ออะไร", "ปีที่แล้วเราไปสหราชอาณาจักรบริเตนใหญ่มา"),
        ("ສາທາລະນະລັດປະຊາທິປະໄຕປະຊາຊົນລາວມີຈັກແຂວງ", "ລາວໄປສາທາລະນະລັດປະຊາທິປະໄຕປະຊາຊົນລາວປີກາຍ"),
        ("ព្រះរាជាណាចក្រកម្ពុជាមានខេត្តប៉ុន្មាន", "ខ្ញុំបានទៅព្រះរាជាណាចក្រកម្ពុជាឆ្នាំមុន"),
        ("ပြည်ထောင်စုသမ္မတမြန်မာနိုင်ငံတော် ဘယ်မှာလဲ", "ပြည်ထောင်စုသမ္မတမြန်မာနိုင်ငံတော် သို့ သွားသည်"),
        ("中国人民政治协商会议全国委员会的职能是什么？", "他是中国人民政治协商会议全国委员会委员。"),
    ],
)
def test_a_name_in_a_script_without_spaces_is_no_contamination(question: str, text: str) -> None:
    assert Contamination([question]).find([text]) == [(0, "")]


@pytest.mark.parametrize(
    "question",
    [
        "次の文章を読んで、下線部が指す内容として最も適切なものを選びなさい。解答は一つだけとし、理由も簡潔に述べること。",
        "下列关于细胞呼吸过程的叙述中，哪一项最能够说明植物在夜间仍然会消耗氧气并释放二氧化碳？",
        "ข้อใดต่อไปนี้อธิบายเหตุผลที่พืชยังคงใช้ออกซิเจนและปล่อยคาร์บอนไดออกไซด์ออกมาในเวลากลางคืนได้ถูกต้องที่สุด",
    ],
)
def test_a_question_in_a_script_without_spaces_is_found(question: str) -> None:
    known = Contamination([question])
    assert known.untested == 0
    assert known.find([f"今日 {question} 了"])[0][0] > 0


def test_short_evaluations_are_counted_as_untested() -> None:
    assert Contamination([QUESTION, "too short"], 13).untested == 1
    assert Contamination([], 13).find([QUESTION]) == [(0, "")]


def test_evaluation_files(tmp_path: Path) -> None:
    rows = [{"q": "one", "answers": ["two", {"text": "three"}], "n": 4}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    with gzip.open(tmp_path / "b.txt.gz", "wt") as file:
        file.write("four\n\nfive\n")
    texts = read_evaluations([tmp_path / "a.jsonl", tmp_path / "b.txt.gz"])
    assert [text.strip() for text in texts] == ["one", "two", "three", "four", "five"]
    (tmp_path / "c.jsonl").write_text('{"q": "six"}\r\n', encoding="utf-8-sig")
    (tmp_path / "d.txt").write_text("seven", encoding="utf-8-sig")
    assert [text.strip() for text in read_evaluations([tmp_path / "c.jsonl", tmp_path / "d.txt"])] == ["six", "seven"]
    (tmp_path / "bad.jsonl").write_text('{"q": 1}\n{"q"')
    with pytest.raises(PipelineError, match=r"bad.jsonl: line 2: not readable as JSON lines"):
        read_evaluations([tmp_path / "bad.jsonl"])
