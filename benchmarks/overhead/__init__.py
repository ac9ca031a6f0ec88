"""What encryption costs: per operation, in groups, at key set-up, and end to end on the relay.

schemes     the ways to seal, each as a pair of ends; ratchets joins those of libraries that are installed
operations  seal and open by payload, sender and recipient by group size, key set-up by group size
end_to_end  paired runs of one seeded scenario, with and without encryption, without and with TLS
report      the tables, as text, Markdown and JSON
"""
