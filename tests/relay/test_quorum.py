"""The quorum of a stream, against the definition: the q-th largest of what the members acknowledged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.quorum import Quorum

acks = st.lists(st.tuples(st.integers(0, 8).map(lambda member: bytes([member])), st.integers(1, 50)), max_size=40)


@given(st.dictionaries(st.binary(min_size=1, max_size=1), st.integers(1, 20), max_size=5), acks, st.integers(1, 12))
def test_the_floor_is_what_so_many_members_have(known: dict[bytes, int], came: list[tuple[bytes, int]], q: int) -> None:
    quorum = Quorum(dict(known))
    model = dict(known)
    for handle, upto in came:
        is_news = upto > model.get(handle, 0)
        assert quorum.note(handle, upto) is is_news
        if is_news:
            model[handle] = upto
        expected = sorted(model.values(), reverse=True)
        assert quorum.floor(q) == (expected[q - 1] if q <= len(expected) else 0)
