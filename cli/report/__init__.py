"""The report of a run: one HTML file that opens anywhere, made from the run folder's files alone.

    runfolder.py   what a run folder holds, whichever parts exist yet; bounded samples of large tables
    blocks.py      what a page is made of: tables, figures, texts, sections
    charts.py      kinds of charts that several sections draw; excerpts.py: passages of documents
    funnel.py rules.py signals.py samples.py languages.py duplicates.py extraction.py tokens.py
    training.py completions.py ledger.py times.py environment.py
                   a section each: `section(run)`
    compare.py     several runs side by side
    write.py       which sections, in which order; the head of the page
    page.py        sections to one self-contained HTML file (page.html.jinja, page.css, page.js)
    command.py     `pretrain report`

Reading is bounded, so a report of any corpus takes seconds and stays under 8 MB, 4.8 of which are plotly.js.
"""
