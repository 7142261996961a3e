"""What `pretrain ablate` is made of.

variants.py   the recipes that `--vary` asks for
measure.py    one variant: build it, train it with each seed, score it
verdicts.py   which differences the spread over seeds allows to call differences
page.py       table, plot and verdicts
"""
