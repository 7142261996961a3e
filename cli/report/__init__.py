"""The report of a run: one HTML file that opens anywhere, made from the run folder's files alone.

    write.py        the table of sections, the head of the page, the comparison of several runs
    corpus.py       what each stage kept and dropped, by rule, source, language and length; tokens and mixture
    histograms.py   values of the quality signals with the rules' thresholds
    passages.py     passages of documents: dropped, duplicate, extracted
    learning.py     training curves, samples, events, times, environment
    page.py         blocks (tables, figures, texts) and the HTML made of them (page.html.jinja, page.css, page.js)

A section's functions take a `RunFolder` and return blocks. Tables of documents are read as bounded samples, so a report
of any corpus takes seconds and stays under 8 MB, of which plotly.js is 4.8.
"""
