"""Names that the fast extractor knows: HTML tags with their kinds, and words of class, id and text by group.

The words are what authors of pages and of extractors use for the parts of a page in any site (Readability,
boilerpipe and the CMSs' default themes among them); none is a host's or a page's own. All are looked up by their
FNV-1a hash in open-addressing tables, so that a kernel can test each prefix of a word while it reads it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

U8 = np.ndarray[Any, np.dtype[np.uint8]]
U32 = np.ndarray[Any, np.dtype[np.uint32]]
TABLE_SIZE = 2048  # slots of either table, a power of two several times the number of names

BLOCK, VOID, SKIPPED, RAW = 1, 2, 4, 8  # kinds of tags; text in SKIPPED and RAW elements is no text of the page

_KINDS = {
    BLOCK: "html body p div h1 h2 h3 h4 h5 h6 ul ol li dl dt dd table caption thead tbody tfoot tr td th pre blockquote"
    " article section main nav header footer aside form fieldset legend figure figcaption address details summary"
    " center dir menu hgroup search noscript template script-template button label frameset",
    BLOCK | VOID: "hr",
    VOID: "br img input meta link area base col embed param source track wbr",
    SKIPPED: "select datalist svg canvas object video audio map applet rt rp annotation progress meter dialog",
    RAW: "script style textarea title iframe noembed noframes xmp option",
    0: "a b i u s em strong span font small big sub sup code kbd samp var tt cite q abbr acronym time mark ins del"
    " strike dfn bdi bdo data ruby math",
}
TAGS: dict[str, int] = {}
KINDS = np.zeros(256, np.uint8)
for _kind, _names in _KINDS.items():
    for _name in _names.split():
        TAGS[_name] = len(TAGS) + 1  # 0 stands for a tag that is not listed
        KINDS[TAGS[_name]] = _kind

# Groups of words in class, id, role and itemprop. Bit i of an element's mask stands for the i-th group.
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
}


def fnv(name: str) -> int:
    """32-bit FNV-1a hash of a name's UTF-8 bytes."""
    value = 2166136261
    for byte in name.encode():
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


@cache
def tag_table() -> tuple[U32, U8]:
    """(hash, id) by slot, for tags."""
    keys, values = np.zeros(TABLE_SIZE, np.uint32), np.zeros(TABLE_SIZE, np.uint8)
    for name, number in TAGS.items():
        slot = _free_slot(keys, fnv(name))
        keys[slot], values[slot] = fnv(name), number
    return keys, values


@cache
def word_table(text: bool = False) -> tuple[U32, U32, U32]:
    """(hash, groups of the whole word, groups of the word as a prefix) by slot; group i is bit i."""
    keys, whole, prefix = (np.zeros(TABLE_SIZE, np.uint32) for _ in range(3))
    for bit, words in enumerate((TEXT_GROUPS if text else NAME_GROUPS).values()):
        for word in words.split():
            slot = _free_slot(keys, fnv(word.rstrip("*")))
            keys[slot] = fnv(word.rstrip("*"))
            (prefix if word.endswith("*") else whole)[slot] |= np.uint32(1 << bit)
    return keys, whole, prefix


def _free_slot(keys: U32, value: int) -> int:
    """Slot that holds `value` or may take it."""
    slot = value & (TABLE_SIZE - 1)
    while keys[slot] not in (0, value):
        slot = (slot + 1) & (TABLE_SIZE - 1)
    return slot
