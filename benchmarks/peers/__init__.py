"""Servers that the relay is measured against; each needs a binary of its own."""
