"""The regression gate: is a relay slower than it was, by two commits of ours or by two builds of any?

trees         both commits as worktrees, always removed
runs          what a run gives, whatever was run
tree_runs     runs of commits: a fresh relay of a tree on its own core, the same load, a handful of figures
target_runs   runs of targets, spoken to by their dialects
metrics       the figures, and how much worse each may get
decide        intervals -> regression, pass or open, for each metric and for all
session       A/A, then ABBA rounds, until decided or out of time
report        the stored result and the comparison of two of them
outputs       text, Markdown, JUnit, github-action-benchmark
"""
