"""Statistics of a document's tokens: words, letters, stop words, and Gopher's repeated n-grams.

Tokens are numbered, then pairs of numbers, then pairs of (n-gram, next token): an n-gram is a number and two are
equal if and only if their tokens are (up to a collision of 64-bit token hashes). An n-gram can repeat only where the
(n-1)-grams at its place and the next repeat, so each level looks at what is left of the one before: all of them
together cost about as much as bigrams alone on prose, and stay linear on any text.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pipeline.signals.numbering import number
from pipeline.signals.words import HAS_LETTER, IS_WORD

Array = np.ndarray[Any, Any]

BUILT_ON = {"numbering": "a7fef715", "words": "de36fe42"}  # see numbering

COLUMNS = (
    "tokens",
    "words",
    "word_characters",
    "letter_tokens",
    "unique_words",
    "word_entropy",
    "stop_words",
    "stop_word_tokens",
    *(f"top_{n}gram" for n in (2, 3, 4)),
    *(f"duplicate_{n}gram" for n in range(5, 11)),
    "copied_characters",
)
_TOP, _DUPLICATE, _COPIED = (COLUMNS.index(name) for name in ("top_2gram", "duplicate_5gram", "copied_characters"))
_LONGEST = 10
_IS_WORD_SHIFT = IS_WORD.bit_length() - 1
_SHORTEST_COPY = 4  # tokens
_LISTED = np.uint64(32)  # bits above: languages in which a form is listed, or listed in small letters


def measure(
    tokens: tuple[Array, Array, Array, Array, Array], languages: Array, stop_keys: Array, stop_masks: Array
) -> Array:
    """float64 (documents, len(COLUMNS)) of `words.tokenize`'s tokens.

    languages: int64 (documents, 2), bits for `stop_words` and `stop_word_tokens` in the masks of the stop-word
    table (`stopwords.table`), or -1. n-gram columns count characters: of all occurrences of the most frequent
    n-gram with the spaces between its tokens; of the tokens in n-grams that occurred before; of the tokens that a
    greedy Lempel-Ziv parse copies from before, at least _SHORTEST_COPY in a row.
    """
    _, lengths, kinds, hashes, ends = tokens
    out = np.zeros((len(ends), len(COLUMNS)))
    _measure(lengths, kinds, hashes, ends, languages, stop_keys, stop_masks, out)
    return out


@njit(cache=True)
def _stop_mask(key: np.uint64, stop_keys: Array, stop_masks: Array) -> np.uint64:
    slot = np.int64(key >> np.uint64(40)) & (stop_keys.size - 1)
    while stop_keys[slot] != 0:
        if stop_keys[slot] == key:
            return stop_masks[slot]  # type: ignore[no-any-return]
        slot = (slot + 1) & (stop_keys.size - 1)
    return np.uint64(0)


@njit(cache=True)
def _words(
    hashes: Array, ids: Array, counts: Array, different: int, languages: Array, stop_keys: Array, stop_masks: Array,
    row: Array,
) -> None:  # fmt: skip
    """Distinct tokens, their entropy in bits, stop words."""
    row[4] = different
    entropy, total, seen = 0.0, ids.size, 0
    for i in range(total):
        if ids[i] != seen:
            continue
        seen += 1
        count = counts[ids[i]]
        if count > 1:
            entropy += count * np.log2(count)
        mask = _stop_mask(hashes[i], stop_keys, stop_masks)
        if mask and languages[0] >= 0:
            row[6] += float(mask >> np.uint64(languages[0]) & np.uint64(1))
            row[7] += float(count * (mask >> (np.uint64(languages[1]) + _LISTED) & np.uint64(1)))
    row[5] = np.log2(total) - entropy / total


@njit(cache=True)
def _top(grams: Array, places: Array, counts: Array, different: int, lengths: Array, n: int) -> int:
    """Characters in all occurrences of the most frequent n-gram, of equals the first, spaces included; 0 if once."""
    best, most = -1, 1
    for k in range(different):
        if counts[k] > most:
            best, most = k, counts[k]
    for i in range(places.size if most > 1 else 0):
        if grams[i] == best:
            place = places[i]
            return int((lengths[place : place + n].sum() + n - 1) * most)
    return 0


@njit(cache=True)
def _duplicates(ids: Array, places: Array, counts: Array, different: int, lengths: Array, n: int) -> int:
    """Characters in n-grams seen before, reading on after the end of each one found."""
    seen = np.zeros(different, np.bool_)
    characters, free = 0, 0
    for i in range(places.size):
        place = places[i]
        if place < free or counts[ids[i]] < 2:
            continue
        if seen[ids[i]]:
            for k in range(place, place + n):
                characters += lengths[k]
            free = place + n
        else:
            seen[ids[i]] = True
    return characters


@njit(cache=True)
def _copies(grams: Array, places: Array, counts: Array, different: int, ids: Array, lengths: Array) -> int:
    """Characters of tokens copied from before: from each repeated n-gram on, as far as the tokens agree."""
    latest = np.full(different, -1, np.int32)
    characters, free = 0, 0
    for i in range(places.size):
        place, gram = places[i], grams[i]
        source = latest[gram]
        latest[gram] = place
        if source >= 0 and place >= free:
            free = place
            while free < ids.size and ids[free] == ids[source]:
                characters += lengths[free]
                free, source = free + 1, source + 1
    return characters


@njit(cache=True)
def _repeating(places: Array, grams: Array, counts: Array, next_places: Array, next_grams: Array) -> int:
    """Keep the places at which an n-gram and the one at the next place both repeat. Returns how many."""
    kept = 0
    for i in range(places.size - 1):
        if counts[grams[i]] > 1 and places[i + 1] == places[i] + 1 and counts[grams[i + 1]] > 1:
            next_places[kept], next_grams[kept] = places[i], grams[i]
            kept += 1
    return kept


@njit(cache=True)
def _ngrams(ids: Array, counts: Array, lengths: Array, row: Array) -> None:
    size = ids.size
    places, grams = np.empty(size, np.int32), np.empty(size, np.int32)
    used = _repeating(np.arange(size, dtype=np.int32), ids, counts, places, grams)
    keys = np.empty(used, np.uint64)
    numbers = np.empty(used, np.int32)
    for n in range(2, _LONGEST + 1):
        for i in range(used):
            keys[i] = np.uint64(grams[i]) << np.uint64(32) | np.uint64(ids[places[i] + n - 1])
        different = number(keys[:used], numbers[:used], counts)
        if n <= 4 and n <= size:
            top = _top(numbers[:used], places[:used], counts, different, lengths, n)
            row[_TOP + n - 2] = top if top else lengths[:n].sum() + n - 1  # no repetition: all are as frequent
        if n == _SHORTEST_COPY:
            row[_COPIED] = _copies(numbers[:used], places[:used], counts, different, ids, lengths)
        if n >= 5:
            row[_DUPLICATE + n - 5] = _duplicates(numbers[:used], places[:used], counts, different, lengths, n)
        # Reads run ahead of writes, so the places left can take the place of all.
        used = _repeating(places[:used], numbers[:used], counts, places, grams)


@njit(cache=True)
def _measure(
    lengths: Array, kinds: Array, hashes: Array, ends: Array, languages: Array, stop_keys: Array, stop_masks: Array,
    out: Array,
) -> None:  # fmt: skip
    start = 0
    for document in range(ends.size):
        end, row = ends[document], out[document]
        size = end - start
        if size:
            words, characters, letters = 0, 0, 0
            for i in range(start, end):
                word = kinds[i] >> _IS_WORD_SHIFT & 1
                words += word
                characters += word * lengths[i]
                letters += kinds[i] & HAS_LETTER
            row[1], row[2], row[3] = words, characters, letters
            row[0] = size
            ids, counts = np.empty(size, np.int32), np.empty(size, np.int32)
            different = number(hashes[start:end], ids, counts)
            _words(hashes[start:end], ids, counts, different, languages[document], stop_keys, stop_masks, row)
            _ngrams(ids, counts, lengths[start:end], row)
        start = end
