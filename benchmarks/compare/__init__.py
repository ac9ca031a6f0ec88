"""`relaymark compare`: the same sealed work against several relays in turn: who is quicker, and who carries more.

cli           options, checked all at once
command       what it starts, and what it writes
session       the rounds: each target in turn, interleaved; runs by the harness's engine, then a closed window
measurements  the plan, and what was found so far
ranking       order with ties, ratios with intervals; pure
report        tables, JSON, Markdown
"""
