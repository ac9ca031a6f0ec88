"""`relaymark compare`: the same sealed work against several relays in turn, and which of them carries more.

cli         options, checked all at once
workload    who is in which stream, and what is published where and when; pure
links       connections that have joined, by the dialects of loadtests
saturate    closed window: how much a relay carries
pace        open loop: how long deliveries take at a load that all of them carry
session     the rounds: each target in turn, interleaved
ranking     order with ties, ratios with intervals; pure
report      tables, JSON, Markdown, and results that `relaymark report` lays over each other
"""
