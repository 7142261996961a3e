"""Names that the fast extractor knows, and the reading of a start tag's attributes.

HTML tags with their kinds, and words of class, id and text by group. The words are what authors of pages and of
extractors use for the parts of a page on any site (Readability, boilerpipe and the CMSs' default themes among them);
none is a host's or a page's own. All are looked up by their 32-bit FNV-1a hash, so that a kernel can test each prefix
of a word while it reads it.

Attributes are read once and not kept: what class, id, role and itemprop name, whether the element is hidden, a link, a
template, TeX, JSON-LD, and how many columns and rows a table cell spans.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from pipeline.kernels.compiled import Array, inner
from pipeline.kernels.hashing import FNV32, PRIME32, claim_slot, find_slot, fnv, fnv32, is_space, lower

TABLE_SIZE = 2048  # slots of either table, a power of two several times the number of names

BLOCK, VOID, SKIPPED, RAW = 1, 2, 4, 8  # kinds of tags; text in SKIPPED and RAW elements is no text of the page

_KINDS = (  # tags are numbered in this order, which trained trees know: new ones come last
    (BLOCK, "html body p div h1 h2 h3 h4 h5 h6 ul ol li dl dt dd table caption thead tbody tfoot tr td th pre"
    " blockquote article section main nav header footer aside form fieldset legend figure figcaption address details"
    " summary center dir menu hgroup search noscript template script-template button label frameset"),
    (BLOCK | VOID, "hr"),
    (VOID, "br img input meta link area base col embed param source track wbr"),
    (SKIPPED, "select datalist svg canvas object video audio map applet rt rp annotation progress meter dialog"),
    (RAW, "script style textarea title iframe noembed noframes xmp option"),
    (0, "a b i u s em strong span font small big sub sup code kbd samp var tt cite q abbr acronym time mark ins del"
    " strike dfn bdi bdo data ruby math"),
    (SKIPPED, "annotation-xml"),
)  # fmt: skip
TAGS: dict[str, int] = {}
KINDS = np.zeros(256, np.uint8)
for _kind, _names in _KINDS:
    for _name in _names.split():
        TAGS[_name] = len(TAGS) + 1  # 0 stands for a tag that is not listed
        KINDS[TAGS[_name]] = _kind

# Groups of words in class, id, role and itemprop. Bit i of an element's mask is the i-th group.
# `word*` matches as a prefix of a part of the name (parts end at non-letters and before capitals).
NAME_GROUPS = {
    "article": "article* artikel* story* entry* hentry articulo* blogpost newsitem",
    "content": "content* main maincontent body bodytext text* copy contenu* contenido* inhalt* richtext prose",
    "post": "post posts postbody postcontent message* blog* news*",
    "title": "title* headline* heading* titre* titulo* subtitle* ueberschrift*",
    "header": "header* masthead* top topbar branding logo* site",
    "footer": "footer* foot bottom* copyright* colophon* legal imprint impressum contentinfo",
    "navigation": "nav navi navbar navigation* menu* breadcrumb* crumb* pager* paginat* paging toolbar tabs tab skip*"
    " jump* toc sitemap prev next",
    "sidebar": "sidebar* side aside* widget* rail* right left secondary complementary marginal* column* tertiary",
    "comment": "comment* kommentar* comentario* commentaire* disqus* respond* reply* replies discuss* feedback*",
    "forum": "forum* topic* thread* quote* signature* qa question* answer* review*",
    "share": "share* sharing sharedaddy social* facebook* twitter* follow* addthis* addtoany* like* tweet* email*"
    " print* whatsapp pinterest",
    "related": "related* recommend* more teaser* trending* popular* recent* latest* promo* outbrain* taboola* similar*"
    " also read* relacionad* verwandt* weiter* mehr suggest* featured* most crosslink* linklist* recirc*",
    "advert": "ad ads adv advert* sponsor* banner* anzeige* werbung* dfp gpt adsense* adslot* adbox* pub publicid*"
    " affiliate* commercial* doubleclick*",
    "meta": "meta* byline* author* date* time* published* posted tag tags tagcloud category* categories cat cats info"
    " infos details credits dateline* timestamp* autor* bio profile* avatar*",
    "caption": "caption* figure* image* img photo* picture* gallery* galerie* bild* credit* media* video* slide*"
    " carousel* thumb* lightbox*",
    "promotion": "newsletter* subscri* signup sign login* register* registration modal* popup* popover* overlay*"
    " cookie* consent* gdpr* privacy* paywall* donat* cta callout* notice* alert* download* app abo*",
    "form": "search* form* input* filter* sort* select* dropdown* button* btn* field* captcha* vote* voting poll*"
    " rating* survey*",
    "hidden": "hidden* hide invisible screen sr visually* offscreen noprint collapse* none hid inactive",
    "product": "product* price* cart* basket* description* spec specs specification* feature features detail* shop*"
    " buy* offer* sku stock*",
    "list": "list* item* result* grid* card* row rows tile* archive* listing* collection*",
    "lead": "lead* intro* summary* abstract* standfirst* excerpt* dek deck vorspann kicker*",
    "documentation": "doc docs document* section* markdown wiki* mw mediawiki manual* tutorial* chapter* highlight*"
    " code* api reference* faq* accordion* toggle*",
    "wrapper": "wrap* container* page* inner* outer* layout* center* primary* region* block* view* panel*",
    "article-body": "articlebody articletext articlecontent entrycontent storybody storytext reviewbody",
    "review": "review* rating* testimonial* stars ugc bv yotpo okendo judgeme stamped bazaarvoice feefo trustpilot",
    "dialog": "dialog* modal* drawer* popup* popover* overlay* flyout* offcanvas minicart lightbox* toast* tooltip*"
    " dropdown* megamenu* submenu*",
    "specification": "spec specs specification* attribute* technical* tech dimension* propert* param* characteristic*"
    " ingredient* nutrition*",
    "description": "desc description* overview* about* synopsis* detail details",
    "price": "price* pricing cost* amount* currency money* sale* discount* msrp",
    "user": "user* member* author* avatar* poster* profile* username nick*",
}
# Groups of words in the text of a block: what furniture says, in the languages of most pages.
TEXT_GROUPS = {
    "rights": "copyright rights reserved rechte vorbehalten droits réservés derechos reservados trademark impressum"
    " imprint disclaimer",
    "policy": "cookie cookies privacy datenschutz policy terms conditions consent agb gdpr",
    "share": "share teilen tweet twitter facebook whatsapp pinterest linkedin instagram follow partager compartir like"
    " email print drucken flattr xing telegram",
    "comment": "comment comments kommentar kommentare commentaire commentaires comentario comentarios reply antworten"
    " respond replies trackback pingback",
    "subscribe": "subscribe newsletter abonnieren abo abonnez rss feed login log register anmelden registrieren sign"
    " signup password passwort",
    "related": "related more mehr read weiter weiterlesen next previous older newer popular recommended also ähnliche"
    " lesen leer lire siehe verwandte beliebt",
    "author": "by von author autor posted published veröffentlicht publié publicado written editor foto photo image"
    " quelle source credit getty",
    "tags": "tags tag categories category kategorie kategorien filed schlagwörter topics themen archive"
    " archives rubrik",
    "navigation": "home menu search suche contact kontakt about sitemap navigation top back zurück skip startseite"
    " accueil inicio",
    "advert": "advertisement anzeige werbung sponsored advertising ad ads publicité publicidad affiliate",
    "review": "review reviews reviewed rating ratings rated stars star verified purchaser testimonials testimonial"
    " helpful bewertung bewertungen avis reseñas opiniones recensioni",
    "shop": "cart basket checkout shipping delivery return returns stock buy add wishlist quantity qty sold seller"
    " payment pay order price warenkorb lieferung versand panier livraison carrito envío",
    "specification": "specification specifications specs detail details description overview features dimensions weight"
    " material materials size sizes colour color model sku ingredients includes technical warranty brand beschreibung"
    " eigenschaften caractéristiques descripción características",
    "browse": "sort filter filters result results showing items products view all load show page per apply clear"
    " compare viewed recently similar together bought customers shop",
    "thread": "reply replies quote quoted joined post posts member members liked likes views user registered reputation"
    " moderator admin ago thread topic topics solution answer answers asked answered votes active wrote said",
}
ROLE_BIT = np.uint32(1 << 31)  # role="main"
# What attributes say of an element.
LINKED, TEMPLATE, HIDDEN, SHADOW, TEX, FORMULA, LINKED_DATA = 1, 2, 4, 8, 16, 32, 64
MAX_SPAN = 32  # columns or rows that a cell may cover
HIDDEN_BIT = np.uint32(1 << list(NAME_GROUPS).index("hidden"))


@cache
def tag_table() -> tuple[Array, Array]:
    """(uint32 hash, uint8 id) by slot, for tags."""
    keys, values = np.zeros(TABLE_SIZE, np.uint32), np.zeros(TABLE_SIZE, np.uint8)
    for name, number in TAGS.items():
        values[claim_slot(keys, fnv(name.encode(), FNV32, PRIME32))] = number
    return keys, values


@cache
def word_table(text: bool = False) -> tuple[Array, Array, Array]:
    """(hash, groups of the word, groups of words that begin with it) by slot, uint32; group i is bit i.

    text: of TEXT_GROUPS instead of NAME_GROUPS.
    """
    keys, words, prefixes = (np.zeros(TABLE_SIZE, np.uint32) for _ in range(3))
    for bit, group in enumerate((TEXT_GROUPS if text else NAME_GROUPS).values()):
        for word in group.split():
            slot = claim_slot(keys, fnv(word.rstrip("*").encode(), FNV32, PRIME32))
            (prefixes if word.endswith("*") else words)[slot] |= np.uint32(1 << bit)
    return keys, words, prefixes


@inner
def is_alpha(byte: int) -> bool:
    return 97 <= (byte | 32) <= 122


@inner
def _name_groups(page: Array, start: int, end: int, keys: Array, words: Array, prefixes: Array) -> np.uint32:
    """Groups of the words in an attribute's value; words end at anything but letters, and before a capital."""
    mask = np.uint32(0)
    value = FNV32
    length = 0
    for at in range(start, end + 1):
        byte = page[at] if at < end else np.uint8(32)
        upper = 65 <= byte <= 90
        starts = upper and length > 0 and 97 <= page[at - 1] <= 122
        if not is_alpha(byte) or starts:
            if length > 1:
                slot = find_slot(keys, value)
                if slot >= 0:
                    mask |= words[slot]
            value = FNV32
            length = 0
        if is_alpha(byte):
            value = fnv32(value, lower(byte))
            length += 1
            if length > 1:
                slot = find_slot(keys, value)
                if slot >= 0:
                    mask |= prefixes[slot]
    return mask


@inner
def _has(page: Array, start: int, end: int, word: bytes) -> bool:
    """Whether page[start:end] holds `word` (lower case), whatever its case, perhaps with blanks within."""
    size = len(word)
    for first in range(start, end - size + 1):
        i, at = 0, first
        while i < size and at < end and (lower(page[at]) == word[i] or (i > 0 and is_space(page[at]))):
            i += not is_space(page[at])
            at += 1
        if i == size:
            return True
    return False


@inner
def _begins(page: Array, start: int, end: int, word: bytes) -> bool:
    return end - start >= len(word) and _has(page, start, start + len(word), word)


@inner
def _is_name(page: Array, start: int, end: int, word: bytes) -> bool:
    return end - start == len(word) and _has(page, start, end, word)


@inner
def _number(page: Array, start: int, end: int) -> int:
    """A span, 1 to MAX_SPAN."""
    value = 0
    while start < end and 48 <= page[start] <= 57 and value < MAX_SPAN:
        value = 10 * value + int(page[start]) - 48
        start += 1
    return max(min(value, MAX_SPAN), 1)


@inner
def _attribute_value(page: Array, at: int) -> tuple[int, int, int]:
    """(start, end, position behind it) of the value of an attribute whose name ends at `at`; empty if it has none."""
    size = len(page)
    while at < size and is_space(page[at]):
        at += 1
    if at == size or page[at] != 61:  # =
        return at, at, at
    at += 1
    while at < size and is_space(page[at]):
        at += 1
    start = at
    if at < size and (page[at] == 34 or page[at] == 39):
        quote = page[at]
        at += 1
        while at < size and page[at] != quote:
            at += 1
        return start + 1, at, at + 1
    while at < size and not is_space(page[at]) and page[at] != 62:
        at += 1
    return start, at, at


@inner
def read_attributes(
    page: Array, at: int, keys: Array, words: Array, prefixes: Array
) -> tuple[int, np.uint32, int, int]:
    """(position behind `>`, mask of groups, flags, columns + 256 * rows of a table cell) of a tag.

    at: position behind the tag's name; keys, words, prefixes: `word_table()`.
    """
    size = len(page)
    mask = np.uint32(0)
    flags, columns, rows = 0, 1, 1
    while at < size:
        byte = page[at]
        if byte == 62:  # >
            at += 1
            break
        if is_space(byte) or byte == 47 or byte == 61 or byte == 34 or byte == 39:
            at += 1
            continue
        name = at
        while at < size and not is_space(page[at]) and page[at] != 61 and page[at] != 62 and page[at] != 47:
            at += 1
        name_end = at
        start, end, at = _attribute_value(page, at)
        length = name_end - name
        first = lower(page[name])
        if (
            (length == 2 and first == 105 and lower(page[name + 1]) == 100)
            or (first == 99 and _is_name(page, name, name_end, b"class"))
            or (first == 105 and _is_name(page, name, name_end, b"itemprop"))
        ):  # id
            mask |= _name_groups(page, start, end, keys, words, prefixes)
            if length == 5 and (_begins(page, start, end, b"mathjax") or _begins(page, start, end, b"mjx-")):
                flags |= FORMULA
        elif first == 99 and _is_name(page, name, name_end, b"colspan"):
            columns = _number(page, start, end)
        elif first == 114 and _is_name(page, name, name_end, b"rowspan"):
            rows = _number(page, start, end)
        elif first == 114 and _is_name(page, name, name_end, b"role"):
            if _is_name(page, start, end, b"main"):
                mask |= ROLE_BIT
            else:
                mask |= _name_groups(page, start, end, keys, words, prefixes)
        elif first == 104 and _is_name(page, name, name_end, b"href"):
            flags |= LINKED
        elif first == 104 and _is_name(page, name, name_end, b"hidden"):
            mask |= HIDDEN_BIT
            flags |= 0 if _is_name(page, start, end, b"until-found") else HIDDEN
        elif first == 97 and _is_name(page, name, name_end, b"aria-hidden"):
            if _is_name(page, start, end, b"true"):
                mask |= HIDDEN_BIT
                flags |= HIDDEN
        elif first == 115 and _is_name(page, name, name_end, b"style"):
            if _has(page, start, end, b"display:none") or _has(page, start, end, b"visibility:hidden"):
                mask |= HIDDEN_BIT
                flags |= HIDDEN
        elif first == 115 and _is_name(page, name, name_end, b"shadowrootmode"):
            flags |= SHADOW
        elif first == 116 and _is_name(page, name, name_end, b"type"):
            if _has(page, start, end, b"template") or _is_name(page, start, end, b"text/html"):
                flags |= TEMPLATE
            elif _begins(page, start, end, b"math/tex"):
                flags |= TEX
            elif _begins(page, start, end, b"application/ld+json"):
                flags |= LINKED_DATA
        elif first == 101 and _is_name(page, name, name_end, b"encoding"):
            tex = _has(page, start, end, b"x-tex") or _has(page, start, end, b"latex")
            flags |= TEX if tex or _is_name(page, start, end, b"tex") else 0
    return at, mask, flags, columns + 256 * rows
