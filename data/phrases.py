"""Words and sentences of which `planted` makes spam, link lists, filler text and notes."""

from __future__ import annotations

SPAM_LINES = [
    ("en", "Buy cheap boots online today, best price cheap boots, order cheap boots now"),
    ("en", "Free ringtones download free ringtones best free ringtones for every phone"),
    ("en", "Limited offer click now limited offer save big limited offer ends tonight"),
    ("de", "Uhren günstig kaufen, günstige Uhren online, jetzt günstig Uhren bestellen"),
    ("fr", "Crédit rapide sans justificatif, crédit facile, crédit immédiat en ligne"),
    ("es", "Zapatos baratos en oferta, comprar zapatos baratos, zapatos al mejor precio"),
]
SPAM_SENTENCES = [
    ("en", "Looking for the best plumber in {}? Our best plumber in {} is the best plumber you can call today."),
    ("en", "Cheap hotel rooms in {} are here. Book cheap hotel rooms in {} and save on cheap hotel rooms."),
    ("en", "Fast loans in {} without questions. Ask for fast loans in {} and get fast loans without questions."),
    ("de", "Schlüsseldienst in {} gesucht? Unser Schlüsseldienst in {} ist der beste Schlüsseldienst weit und breit."),
    ("it", "Cerchi un idraulico a {}? Il nostro idraulico a {} è il migliore idraulico che puoi chiamare oggi."),
    ("ru", "Окна в городе {} недорого. Закажите окна в городе {} и получите окна недорого уже завтра."),
]
TOWNS = ["Ashby", "Brenton", "Carlow", "Dunmore", "Elsford", "Farley", "Grantham", "Holm", "Ilford", "Kirkby"]
NOTES = [
    "This piece was first printed in our winter number.",
    "We thank three readers for their corrections.",
    "The text was shortened a little for this edition.",
    "A reader kindly pointed out a slip in the second paragraph.",
]
QUOTES = [
    "A reader copied out these lines for us and asked whether we remembered where they came from.",
    "We found the following in an old number and put it beside something that seemed to belong to it.",
    "Two pieces that have nothing to do with each other, except that we read them on the same evening.",
]
LOREM = """
dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore
magna aliqua enim ad minim veniam quis nostrud exercitation ullamco laboris nisi aliquip ex ea
commodo consequat duis aute irure in reprehenderit voluptate velit esse cillum fugiat nulla pariatur
excepteur sint occaecat cupidatat non proident sunt culpa qui officia deserunt mollit anim id est
laborum
"""
