"""Shared by all tests: real documents, small archives written with warcio, and the list of slow files."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

TESTS = Path(__file__).parent
SHARED = TESTS.parent.parent / "shared" / "data"

# Left out of `make quick`: files and folders that take more than 7 seconds of a core. They build corpora, train, or
# start processes.
SLOW = (
    "cli/report",
    "cli/test_ablate.py",
    "cli/test_cli.py",
    "cli/test_forget.py",
    "cli/test_inspect.py",
    "cli/test_model_commands.py",
    "cli/test_plain_shards.py",
    "cli/test_reproduce.py",
    "cli/test_status.py",
    "faults",
    "fuzz",
    "pipeline/dedup/test_dedup_stage.py",
    "pipeline/dedup/test_substrings.py",
    "pipeline/extract/test_isolated.py",
    "pipeline/extract/test_structure.py",
    "pipeline/kernels/test_bpe.py",
    "pipeline/language",
    "pipeline/read/test_commoncrawl.py",
    "pipeline/test_build.py",
    "pipeline/test_crashes.py",
    "pipeline/test_depot.py",
    "pipeline/test_executors.py",
    "pipeline/test_own_stage.py",
    "pipeline/test_texts_once.py",
    "pipeline/tokenize/test_pack.py",
    "recipes/test_plan.py",
    "scale",
    "test_end_to_end.py",
    "test_golden.py",
    "test_tutorials.py",
    "trainer/export",
    "trainer/test_anomalies.py",
    "trainer/test_attention.py",
    "trainer/test_cache.py",
    "trainer/test_foreign_shards.py",
    "trainer/test_generate.py",
    "trainer/test_journal.py",
    "trainer/test_loop.py",
    "trainer/test_machine.py",
    "trainer/test_parallel.py",
    "trainer/test_profile.py",
    "trainer/test_recorder.py",
    "trainer/test_sampler.py",
    "trainer/test_score.py",
)

PROSE = {
    "river": """The river rises in a bog above the village, and for the first mile it is hardly wider than a step.
Children dam it with stones in summer. By the time it reaches the mill it has taken in four streams, and the miller
used to say that he could tell from the sound of the weir which of the four had seen rain. The mill stopped in 1951,
when the road was widened. Its wheel was sold for scrap. Today the building belongs to a potter who dries her bowls
in the loft where the flour once hung in the air. She opens the door to visitors on Sundays. Most of them come for
the view of the weir and leave with a bowl.""",
    "bread": """A sourdough starter is only flour and water that somebody has fed with patience. On the first day
nothing happens. On the second a few bubbles appear and it smells of wet straw. After a week the mixture doubles between
breakfast and lunch, and then it is strong enough to raise a loaf. Take a hundred grams of it, add the same weight of
flour and water in the evening, and let it stand until the morning. The dough wants to be wet. Fold it four times in
two hours and do not add flour because it sticks. It will hold together in the end. Bake it hot and let it cool before
you cut it, however hard that is.""",
    "fox": """Foxes have lived in the old cemetery for as long as anyone on our street remembers. They sleep under the
hawthorn by the wall, and in March the cubs come out to play between the graves of two sea captains. The gardener
leaves them alone, since they keep the rabbits away from his roses. In winter they cross the road at night, one
after the other, always at the same lamp post. My neighbour has counted seven this year. She writes the numbers into
a small book that she began in 1988. The figures go up and down with the mice, she says, and have nothing to do with
the weather.""",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow files."""
    for item in items:
        if any(item.path.is_relative_to(TESTS / slow) for slow in SLOW):
            item.add_marker("slow")


def page(text: str, title: str = "A page") -> bytes:
    """An HTML page with the text in paragraphs, and chrome around it."""
    paragraphs = "".join(f"<p>{part}</p>" for part in text.split("\n\n"))
    return (
        f"<!DOCTYPE html><html><head><title>{title}</title></head><body><nav><a href='/'>Home</a>"
        f"<a href='/b'>Contact</a></nav><main><h1>{title}</h1>{paragraphs}</main>"
        "<footer>Imprint and privacy</footer></body></html>"
    ).encode()


def write_warc(path: Path, pages: dict[str, bytes], *, status: str = "200 OK", media: str = "text/html") -> Path:
    """A WARC with one response per URL, fixed date; `.gz`: a gzip member per record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=path.suffix == ".gz")
        for url, body in pages.items():
            headers = StatusAndHeaders(status, [("Content-Type", f"{media}; charset=utf-8")], protocol="HTTP/1.1")
            record = writer.create_warc_record(
                url,
                "response",
                payload=io.BytesIO(body),
                length=len(body),
                http_headers=headers,
                warc_headers_dict={"WARC-Date": "2026-01-01T00:00:00Z"},
            )
            writer.write_record(record)
    return path


@pytest.fixture
def shared() -> Path:
    """The folder of real data next to the checkout; skips the test if there is none."""
    if not SHARED.is_dir():
        pytest.skip("no real data next to this checkout (../shared/data)")
    return SHARED
