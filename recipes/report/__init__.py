"""The report of a run: one HTML file that opens anywhere, made from the run folder's files alone.

    runfolder.py   what a run folder holds, whichever parts exist yet; bounded samples of large tables
    blocks.py      what a page is made of: tables, figures, texts, sections
    corpus.py      sections on documents: funnel, rules, languages, lengths, duplicates, tokens
    examples.py    sections with texts: extraction, dropped and kept documents with the reason marked
    learning.py    sections on training: curves, in-context learning, samples, ledger
    setting.py     times and cost, environment, recipe
    compare.py     several runs side by side
    page.py        sections to one self-contained HTML file (page.html.jinja, page.css, page.js)
    command.py     `pretrain report`

Reading is bounded, so a report of any corpus takes seconds and stays under 8 MB, 4.8 of which are plotly.js.
"""
