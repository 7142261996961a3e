"""Texts of the planted cases that no prose file holds: code, personal data, short pages, lists, keywords."""

from __future__ import annotations

CODE = [
    ("debounce", "Waiting until the typing stops", "A search box that asks the server after every key is rude to the server and flickers for the reader. The usual answer is to wait until nothing has been typed for a moment. The function below returns another function which restarts a timer on every call. Only the last call in a burst gets through. Two hundred milliseconds feel immediate to most people.", "function debounce(action, wait) {\n  let timer = null;\n  return function (...values) {\n    clearTimeout(timer);\n    timer = setTimeout(() => { action(...values); }, wait);\n  };\n}"),
    ("ring-buffer", "A ring buffer in thirty lines of C", "A ring buffer keeps the last few readings of a sensor without ever moving them. Two indices chase each other round an array. When the writer catches up with the reader, the oldest value is lost, which is what we want here. The size is a power of two so that wrapping is a single mask. No allocation takes place after the start.", "struct ring {\n  unsigned head, tail;\n  int values[64];\n};\n\nvoid push(struct ring *r, int value) {\n  r->values[r->head++ & 63] = value;\n  if (r->head - r->tail > 64) { r->tail++; }\n}"),
    ("centre-a-box", "Centring a box, once and for all", "For twenty years people have asked how to put a box into the middle of a page. Grid answers it in two lines. The parent becomes a grid, and its items are placed in the centre of their cells. It works for text of any length and for pictures of any size. Remember to give the parent a height, or there is no middle to speak of.", ".frame {\n  display: grid;\n  place-items: center;\n  min-height: 60vh;\n}\n.frame > p { max-width: 34rem; }"),
    ("read-lines", "Reading a long file line by line in Java", "Loading a file of several gigabytes into a list is seldom a good plan. A stream of lines holds one line at a time and closes the file when the block ends. The example counts the lines that mention a harbour. Note that the pattern is compiled once, outside the loop. On our machine the disk, and not the program, sets the pace.", 'try (Stream<String> lines = Files.lines(path)) {\n  long count = lines.filter(line -> {\n    return line.contains("harbour");\n  }).count();\n  System.out.println(count);\n}'),
    ("worker-pool", "Five workers and a channel", "When there are a thousand small jobs and one slow network, a few workers are enough. Each of them takes the next address from a channel until the channel is closed. The results come back through a second channel, in no particular order. If the order matters, send the position along. The number of workers is the only thing to tune.", "for i := 0; i < 5; i++ {\n  go func() {\n    for job := range jobs {\n      results <- fetch(job)\n    }\n  }()\n}"),
    ("config-example", "All settings of the weather station", "The station reads one file when it starts. Every setting has a default, so an empty file is a valid file. Heights are in metres above the sea, intervals in seconds, and pressure in hectopascals. Changes take effect after a restart. A complete example stands below and can be copied as it is.", '{\n  "station": {"name": "pier", "height": 4.5},\n  "interval": 300,\n  "sensors": ["wind", "rain", "pressure"],\n  "upload": {"enabled": true, "retries": 3}\n}'),
    ("match-tides", "Pattern matching for tide tables", "A reading of the gauge is either high water, low water, or something in between. An enum says so plainly, and the compiler insists that every case is handled. That saved us last year, when a third kind of reading was added. The build failed in four places, each of which had to be thought about. Nothing failed in the field.", 'match reading {\n    Tide::High(level) => log(level),\n    Tide::Low(level) if level < 0.2 => { warn("very low"); }\n    _ => {}\n}'),
]

# Public addresses of well-known resolvers, a private one, and mailboxes of reserved domains.
PII = [
    ("lost-umbrella", "Lost: a green umbrella with a wooden handle", "On Tuesday evening I left a green umbrella in the reading room of the village library, on the hook behind the door. It belonged to my aunt, it has a handle of cherry wood with a small crack, and it is worth nothing to anybody else. If you took it by mistake, do not worry about it. Please write to margaret.hollis@example.com or leave it with the baker. I will happily swap it for a better one. There is a jar of plum jam in it for the finder as well."),
    ("resolver-setup", "Giving the workshop computers a name server", "The old computers in the workshop had no name server of their own, so nothing worked whenever the router was restarted. We now enter two addresses by hand. The first is 8.8.8.8 and the second is 1.1.1.1, and either of them will answer when the other is asleep. The printer stays at 192.168.1.40, which nobody outside can reach. Write the numbers on a card and tape it inside the cupboard. Next year somebody will thank you for it."),
    ("choir-secretary", "Who to ask about the summer concert", "The concert takes place in the boat shed on the last Saturday of June, and the doors open at six. Questions about tickets go to tickets@example.org, where Ines answers on Monday evenings. If you would like to sing with us, write to h.lindqvist@example.net and say whether you can read music. It does not matter if you cannot. We rehearse every Thursday behind the fire station. Bring a pencil, a cushion and something warm to drink."),
    ("server-move", "We are moving the tide gauge to a new server", "The readings of the tide gauge will be served from another machine from the first of March. If your program uses the name of the host, you need not do anything at all. If it uses the number, please change 9.9.9.9 to 149.112.112.112 before the end of the month. The old machine will go on answering for two weeks. After that it will be switched off and given to the school. Report trouble to gauge-keeper@example.com, and tell us the time of the last good reading."),
    ("seed-swap", "Seed swap: the list of people who keep beans", "Eleven households have agreed to keep one kind of bean each, so that no variety is lost in a bad year. The black runner bean is with Tom Arkwright, who can be reached at tom.arkwright@example.org. The yellow climbing bean is with the school garden. Anyone may ask for twenty seeds and is expected to return forty in the autumn. Please dry them properly before you post them. Last year three envelopes arrived with small plants in them."),
    ("moth-records", "How to send us your moth records", "We are grateful for every record, including those of the commonest species. Send the date, the place, the number of animals and, if you can, a photograph to records@moths.example.com. A spreadsheet is welcome, but a postcard is enough. Do not worry about rare names, because three of us look through everything in winter. Records that we cannot confirm are kept all the same. In some years they turned out to be the interesting ones."),
    ("kontakt-verein", "So erreichen Sie den Uferverein", "Unser Verein hat kein Büro, aber fast immer ist jemand zu erreichen. Fragen zum Bootsverleih beantwortet Frau Sommer unter boote@example.org, meistens noch am selben Abend. Wer eine Führung durch das Schilf buchen möchte, schreibt bitte an jan.petersen@example.net und nennt zwei mögliche Termine. Bei Hochwasser fallen alle Führungen aus. Wir sagen Ihnen dann spätestens am Vortag Bescheid. Spenden sind willkommen, am liebsten in Form von alten Rudern oder frischem Kuchen."),
    ("contact-atelier", "Comment joindre l'atelier de reliure", "L'atelier est ouvert le mercredi et le samedi, de quatorze à dix-huit heures. Pour un devis, envoyez deux photographies du livre et ses dimensions à reliure@example.com. Nous répondons en général sous trois jours, sauf pendant les vacances d'été. Les ouvrages très abîmés doivent être apportés en main propre, enveloppés dans un linge. N'essayez surtout pas de recoller une page vous-même. Chaque année, la moitié de notre temps passe à défaire de la colle."),
]  # fmt: skip

SHORT = [
    ("en", "closed", "Closed today", "The museum is closed today. Please come back tomorrow."),
    ("en", "moved", "We have moved", "This page has moved. Follow the sign beside the bridge."),
    ("en", "coming-soon", "Coming soon", "Our new pages are nearly ready."),
    ("en", "photo-114", "Photograph 114", "Boats in the outer harbour, early morning, looking north."),
    ("en", "thanks", "Thank you", "Your message has been sent. We will answer within two days."),
    ("de", "geschlossen", "Heute geschlossen", "Die Werkstatt bleibt heute geschlossen. Wir sind morgen ab neun Uhr wieder da."),
    ("fr", "merci", "Merci", "Votre message est bien parti. Nous vous répondrons très vite."),
    ("es", "aviso", "Aviso", "La biblioteca abre mañana a las diez. Disculpen las molestias."),
    ("it", "chiuso", "Chiuso per ferie", "Il negozio riapre lunedì. Buone vacanze a tutti."),
    ("ru", "zakryto", "Закрыто", "Сегодня музей закрыт. Приходите завтра после десяти часов утра."),
    ("pl", "przerwa", "Przerwa", "Wracamy za godzinę. Prosimy o cierpliwość."),
    ("nl", "dicht", "Even dicht", "De winkel is vandaag dicht. Morgen zijn wij er weer."),
]

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
LOREM = (
    "dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore magna aliqua "
    "enim ad minim veniam quis nostrud exercitation ullamco laboris nisi aliquip ex ea commodo consequat duis aute "
    "irure in reprehenderit voluptate velit esse cillum fugiat nulla pariatur excepteur sint occaecat cupidatat non "
    "proident sunt culpa qui officia deserunt mollit anim id est laborum"
).split()
