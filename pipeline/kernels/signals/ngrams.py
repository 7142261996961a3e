"""Statistics of a document's tokens: words, letters, stop words, and Gopher's repeated n-grams.

Tokens are numbered, then pairs of numbers, then pairs of (n-gram, next token): an n-gram is a number and two are
equal if and only if their tokens are (up to a collision of 64-bit token hashes). An n-gram can repeat only where the
(n-1)-grams at its position and the next repeat, so each level looks only at what the one before left: all levels
together cost about as much as bigrams alone on prose, and stay linear on any text.
"""

from __future__ import annotations

from collections import namedtuple
from typing import NamedTuple

import numpy as np

from pipeline.kernels.compiled import UNCOUNTED, Array, inner, kernel
from pipeline.kernels.hashing import find_slot, number, slots_for
from pipeline.kernels.signals.chunks import Parts
from pipeline.kernels.signals.words import HAS_LETTER, IS_WORD, Tokens

_Column = namedtuple(
    "_Column",
    "tokens words word_characters letter_tokens unique_words word_entropy stop_words stop_word_tokens top_2gram"
    " top_3gram top_4gram duplicate_5gram duplicate_6gram duplicate_7gram duplicate_8gram duplicate_9gram"
    " duplicate_10gram copied_characters",
)
COLUMN = _Column(*range(len(_Column._fields)))
COLUMNS = COLUMN._fields
_LONGEST = 10
_IS_WORD_SHIFT = IS_WORD.bit_length() - 1
_SHORTEST_COPY = 4  # tokens
_LISTED = np.uint64(32)  # bits above: languages in which a form is listed, or listed in small letters


def measure(ends: Array, parts: Parts, tokens: Tokens, languages: Array, stop_keys: Array, stop_masks: Array) -> Array:
    """float64 (documents, len(COLUMNS)).

    ends: int64 (documents,), where each ends in code points; languages: int64 (documents, 2), bits for `stop_words`
    and `stop_word_tokens` in the masks of the stop-word table (`lexicon.stop_table`), or -1. n-gram columns count
    characters: of all occurrences of the most frequent n-gram with the spaces between its tokens; of the tokens in
    n-grams that occurred before; of the tokens that a greedy Lempel-Ziv parse copies from before, at least
    _SHORTEST_COPY in a row.
    """
    out = np.zeros((len(parts.ends), len(COLUMNS)))
    samples, different = tokens.samples, len(tokens.samples)
    most = int(np.diff(ends, prepend=0).max(initial=0))  # no text has more tokens than characters
    vocabulary = Vocabulary(
        tokens.lengths[samples], tokens.kinds[samples], np.empty(different, np.uint64), np.zeros(different, np.int32)
    )
    _stop_masks(tokens.hashes[samples], stop_keys, stop_masks, vocabulary.stops)
    numbers, counts = np.empty((5, most), np.uint32), np.empty((2, most), np.int32)
    scratch = Scratch._make([*numbers, *counts, np.empty(most, np.uint64), slots_for(most)])
    _measure(parts, tokens, vocabulary, languages, scratch, out)
    return out


class Vocabulary(NamedTuple):
    """Of each different token: length (int32), kind (uint8), languages in which it is a stop word (uint64), and how
    often a document has it (int32, zero between documents)."""

    lengths: Array
    kinds: Array
    stops: Array
    counts: Array


class Scratch(NamedTuple):
    """Room for a document's tokens (numbers, the different ones in order) and for its n-grams that repeat."""

    ids: Array
    order: Array
    starts: Array
    grams: Array
    numbers: Array
    counts: Array
    latest: Array
    keys: Array
    slots: Array


@kernel(**UNCOUNTED, error_model="numpy")
def _stop_masks(hashes: Array, stop_keys: Array, stop_masks: Array, out: Array) -> None:
    for i in range(hashes.size):
        slot = find_slot(stop_keys, hashes[i])
        out[i] = stop_masks[slot] if slot >= 0 else np.uint64(0)


@inner
def _words(order: Array, total: int, words: Vocabulary, languages: Array, row: Array) -> None:
    """Counts over the different tokens of a document: words, letters, entropy in bits, stop words."""
    distinct, stops = np.uint64(languages[0]), np.uint64(languages[1]) + _LISTED
    entropy, count_words, characters, letters, kinds_of_stops, all_stops = 0.0, 0, 0, 0, 0, 0
    for token in order:
        count, kind = words.counts[token], words.kinds[token]
        word = count * (kind >> _IS_WORD_SHIFT & 1)
        count_words += word
        characters += word * words.lengths[token]
        letters += count * (kind & HAS_LETTER)
        if count > 1:
            entropy += count * np.log2(count)
        mask = words.stops[token]
        if mask and languages[0] >= 0:
            kinds_of_stops += int(mask >> distinct & np.uint64(1))
            all_stops += count * int(mask >> stops & np.uint64(1))
    row[COLUMN.tokens], row[COLUMN.words], row[COLUMN.word_characters] = total, count_words, characters
    row[COLUMN.letter_tokens], row[COLUMN.unique_words] = letters, order.size
    row[COLUMN.word_entropy] = np.log2(total) - entropy / total
    row[COLUMN.stop_words], row[COLUMN.stop_word_tokens] = kinds_of_stops, all_stops


@inner
def _characters(ids: Array, start: int, n: int, lengths: Array) -> int:
    """Characters of n tokens."""
    characters = 0
    for token in ids[start : start + n]:
        characters += lengths[token]
    return characters


@inner
def _top(grams: Array, starts: Array, counts: Array, different: int, n: int) -> tuple[int, int]:
    """(how often the most frequent n-gram occurs, where first), of equals the first; (1, 0) if none repeats."""
    best, most = -1, 1
    for k in range(different):
        if counts[k] > most:
            best, most = k, counts[k]
    for i in range(starts.size if most > 1 else 0):
        if grams[i] == best:
            return most, starts[i]
    return 1, 0


@inner
def _duplicates(grams: Array, starts: Array, counts: Array, seen: Array, ids: Array, lengths: Array, n: int) -> int:
    """Characters in n-grams seen before, reading on after the end of each one found."""
    seen[:] = 0
    characters, free = 0, 0
    for i in range(starts.size):
        start, gram = starts[i], grams[i]
        if start < free or counts[gram] < 2:
            continue
        if seen[gram]:
            characters += _characters(ids, start, n, lengths)
            free = start + n
        else:
            seen[gram] = 1
    return characters


@inner
def _copies(grams: Array, starts: Array, latest: Array, ids: Array, lengths: Array) -> int:
    """Characters of tokens copied from before: from each repeated n-gram on, as far as the tokens agree."""
    latest[:] = -1
    characters, free = 0, 0
    for i in range(starts.size):
        start, gram = starts[i], grams[i]
        source = latest[gram]
        latest[gram] = start
        if source >= 0 and start >= free:
            free = start
            while free < ids.size and ids[free] == ids[source]:
                characters += lengths[ids[free]]
                free, source = free + 1, source + 1
    return characters


@inner
def _repeating(starts: Array, grams: Array, counts: Array, next_starts: Array, next_grams: Array) -> int:
    """Keep the n-grams that repeat and are followed by one that repeats. Returns how many."""
    kept = 0
    for i in range(starts.size - 1):
        both = (counts[grams[i]] > 1) & (starts[i + 1] == starts[i] + 1) & (counts[grams[i + 1]] > 1)
        next_starts[kept], next_grams[kept] = starts[i], grams[i]
        kept += both
    return kept


@inner
def _ngrams(size: int, words: Vocabulary, s: Scratch, row: Array) -> None:
    ids, lengths, starts, grams, counts = s.ids[:size], words.lengths, s.starts, s.grams, s.counts
    used = 0
    for i in range(size - 1):
        starts[used], grams[used] = i, ids[i]
        used += (words.counts[ids[i]] > 1) & (words.counts[ids[i + 1]] > 1)
    for n in range(2, _LONGEST + 1):
        keys, numbers, last = s.keys[:used], s.numbers[:used], ids[n - 1 :]
        for i in range(used):
            keys[i] = np.uint64(grams[i]) << np.uint64(32) | np.uint64(last[starts[i]])
        different = number(keys, numbers, counts, s.slots)
        if n <= 4 and n <= size:
            most, start = _top(numbers, starts[:used], counts, different, n)
            row[COLUMN.top_2gram + n - 2] = (_characters(ids, start, n, lengths) + n - 1) * most
        if n == _SHORTEST_COPY:
            row[COLUMN.copied_characters] = _copies(numbers, starts[:used], s.latest[:different], ids, lengths)
        if n >= 5:
            seen = s.latest[:different]
            row[COLUMN.duplicate_5gram + n - 5] = _duplicates(numbers, starts[:used], counts, seen, ids, lengths, n)
        # Reads run ahead of writes, so the result may overwrite its source.
        used = _repeating(starts[:used], numbers, counts, starts, grams)


@kernel(**UNCOUNTED, error_model="numpy")
def _measure(parts: Parts, tokens: Tokens, words: Vocabulary, languages: Array, s: Scratch, out: Array) -> None:
    part = 0
    for document in range(parts.ends.size):
        size, different = 0, 0
        while part < parts.ends[document]:
            k = parts.ids[part]
            for token in range(tokens.firsts[k], tokens.firsts[k + 1]):
                s.ids[size] = tokens.numbers[token]
                size += 1
            part += 1
        if size:
            for i in range(size):
                token = s.ids[i]
                s.order[different] = token
                different += words.counts[token] == 0
                words.counts[token] += 1
            row = out[document]
            _words(s.order[:different], size, words, languages[document], row)
            _ngrams(size, words, s, row)
            for token in s.order[:different]:
                words.counts[token] = 0
