"""The regression gate: is the relay at HEAD slower than at BASE?

trees         both commits as worktrees, always removed
runs          one run: a fresh relay of a tree on its own core, the same load, a handful of figures
instructions  instructions a delivery of the relay's process, by perf or valgrind
metrics       the figures, and how much worse each may get
decide        intervals -> regression, pass or open, for each metric and for all
session       A/A, then ABBA rounds, until decided or out of time
report        the stored result and the comparison of two of them
outputs       text, Markdown, JUnit, github-action-benchmark
"""
