"""What tests of translated responses share."""

from __future__ import annotations

from hypothesis import strategies as st

WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "of a place",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    "strict": True,
}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["user", "message", "function_call", "input_text"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "text", "call_id", "name", "arguments", "output", "format"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
