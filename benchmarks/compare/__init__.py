"""`relaymark compare`: the same sealed work against several relays in turn: who is quicker, and who carries more.

cli         options, checked all at once, and what is written
session     the rounds: each target in turn, interleaved; runs by the harness's engine, then a closed window
window      the closed window as a process of its own, asked over pipes
saturate    the closed window: how much a relay carries; counting only
members     its connections, by the dialects of loadtests
workload    its work: who is in which stream, and what is published where; pure
ranking     order with ties, ratios with intervals; pure
report      tables, JSON, Markdown
"""
