"""The reader of forms: whatever the pieces, the same parts; and nothing that could be understood in two ways."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlb_site.lib.multipart import KEPT_BYTES, MAX_PART_HEAD_BYTES, MAX_PARTS, MultipartReader, NotAForm, boundary_of
from routing.core.form import Form
from routing.gateway.spool import Spool

BOUNDARY = b"xYz-9"


def form_body(*parts: tuple[str, bytes], boundary: bytes = BOUNDARY) -> bytes:
    """A form of (the rest of Content-Disposition, value) pairs."""
    pieces = [
        b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (boundary, disposition.encode(), value)
        for disposition, value in parts
    ]
    return b"".join(pieces) + b"--%b--\r\n" % boundary


def read(body: bytes, cuts: list[int] | None = None) -> MultipartReader:
    reader = MultipartReader(BOUNDARY)
    edges = [0, *sorted(cuts or []), len(body)]
    for start, stop in itertools.pairwise(edges):
        reader.feed(body[start:stop])
    return reader


# Bytes that look like the beginnings of boundaries and heads, and any others.
tricky = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"-", b"--", b"xYz", b"-9", b"\r\n\r\n", b"--xYz-", b"\0"])
    | st.binary(max_size=6)
).map(b"".join)
values = st.lists(tricky, max_size=5).map(lambda found: [value for value in found if b"--" + BOUNDARY not in value])


@given(values=values, data=st.data())
def test_any_form_in_any_pieces(values: list[bytes], data: st.DataObject) -> None:
    body = form_body(*((f'name="p{number}"', value) for number, value in enumerate(values)))
    if not values:
        body = b"--" + BOUNDARY + b"--\r\n"
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=12))
    parts = read(body, cuts).finish()
    assert [body[part.start : part.stop] for part in parts] == values
    assert [part.head for part in parts] == [value[:KEPT_BYTES] for value in values]
    assert [part.name for part in parts] == [f"p{number}" for number in range(len(values))]


@given(body=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=5))
def test_rubbish_is_refused_and_nothing_worse(body: bytes, cuts: list[int]) -> None:
    with pytest.raises(NotAForm):
        read(body, [min(cut, len(body)) for cut in cuts]).finish()


@given(cut=st.integers(0, 400))
def test_a_truncated_form_is_refused(cut: int) -> None:
    body = form_body(('name="model"', b"m"), ('name="file"; filename="a.wav"', b"x" * 100)).rstrip()
    with pytest.raises(NotAForm):
        read(body[: min(cut, len(body) - 1)]).finish()


def test_bytes_one_at_a_time() -> None:
    body = form_body(('name="model"', b""), ('name="file"; filename="a.wav"', b"\r\n--xYz-\r\n" * 1000))
    parts = read(body, list(range(len(body)))).finish()
    assert [(part.name, part.size, part.is_file) for part in parts] == [("model", 0, False), ("file", 10_000, True)]
    assert len(parts[1].head) == KEPT_BYTES


HOSTILE = {
    "another boundary": b"--other\r\n" + form_body(('name="a"', b"1")),
    "a preamble": b"hello\r\n" + form_body(('name="a"', b"1")),
    "an epilogue": form_body(('name="a"', b"1")) + b"more",
    "bare line feeds": form_body(('name="a"', b"1")).replace(b"\r\n", b"\n"),
    "the boundary within a value": form_body(('name="a"', b"1\n--xYz-9\r\n")),
    "the boundary begins a value": form_body(('name="a"', b"--xYz-9--")),
    "a longer boundary": form_body(('name="a"', b"1\r\n--xYz-99\r\n")),
    "no name": form_body(("", b"1")),
    "no disposition": b"--xYz-9\r\nContent-Type: text/plain\r\n\r\n1\r\n--xYz-9--\r\n",
    "no head": b"--xYz-9\r\n\r\n1\r\n--xYz-9--\r\n",
    "not form-data": form_body(('name="a"', b"1")).replace(b"form-data", b"attachment"),
    "two names": form_body(('name="a"; name="model"', b"1")),
    "an encoded name": form_body(("name*=UTF-8''model", b"1")),
    "a name beside an encoded one": form_body(("name=\"a\"; name*=UTF-8''model", b"1")),
    "a quoted name with escapes": form_body(('name="mo\\del"', b"1")),
    "an open quote": form_body(('name="a', b"1")),
    "a folded header": form_body(('name="a";\r\n filename="b"', b"1")),
    "a header twice": form_body(('name="a"\r\ncontent-disposition: form-data; name="model"', b"1")),
    "a nul": form_body(('name="a\0"', b"1")),
    "base64": form_body(('name="a"\r\nContent-Transfer-Encoding: base64', b"MQ==")),
    "a head without end": b"--xYz-9\r\nX: " + b"a" * MAX_PART_HEAD_BYTES,
    "too many parts": form_body(*[('name="a"', b"1")] * (MAX_PARTS + 1)),
}


@pytest.mark.parametrize("why", HOSTILE)
def test_hostile_forms_are_refused(why: str) -> None:
    with pytest.raises(NotAForm):
        read(HOSTILE[why]).finish()


def test_what_clients_send_is_understood() -> None:
    body = form_body(
        ('name="file"; filename="日本 \\"a\\".wav"\r\nContent-Type: audio/wav', b"RIFF"),
        ("name=plain", b"1"),
        ('name="timestamp_granularities[]"', b"word"),
        ("name=\"image[0]\"; filename*=UTF-8''a.png", b"\x89PNG"),
    )
    parts = read(b"\r\n" + body).finish()
    assert [part.name for part in parts] == ["file", "plain", "timestamp_granularities[]", "image[0]"]
    assert [part.is_file for part in parts] == [True, False, False, True]
    assert parts[0].content_type == "audio/wav"


@pytest.mark.parametrize(
    ("given", "boundary"),
    [
        (b"multipart/form-data; boundary=abc", b"abc"),
        (b'multipart/form-data; boundary="a b/c"', b"a b/c"),
        (b"multipart/form-data; charset=utf-8; Boundary=----WebKitFormBoundary7MA4", b"----WebKitFormBoundary7MA4"),
    ],
)
def test_the_boundary(given: bytes, boundary: bytes) -> None:
    assert boundary_of(given) == boundary


@pytest.mark.parametrize(
    "given",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b"multipart/form-data; boundary=a; boundary=b",
        b'multipart/form-data; boundary="a\r\nb"',
        b"multipart/form-data; boundary=" + b"a" * 71,
        b'multipart/form-data; boundary="a "',
    ],
)
def test_boundaries_that_are_none(given: bytes) -> None:
    with pytest.raises(NotAForm):
        boundary_of(given)


@pytest.mark.parametrize("size", [0, 1, 5000, 1024 * 1024 + 7, 3_000_000])
async def test_an_alias_is_replaced_in_place_wherever_the_bytes_lie(size: int) -> None:
    before = form_body(('name="file"; filename="a"', bytes(size)), ('name="model"', b"nick"), ('name="n"', b"1"))
    after = form_body(('name="file"; filename="a"', bytes(size)), ('name="model"', b"real-model"), ('name="n"', b"1"))
    spool = Spool(None)
    reader = MultipartReader(BOUNDARY)
    for start in range(0, len(before), 70_000):
        reader.feed(before[start : start + 70_000])
        await spool.write(before[start : start + 70_000])
    await spool.finish()
    form = Form(reader.finish(), spool)
    body = form.replaced("model", b"real-model")
    for _ in range(2):  # and again, for a second node
        assert b"".join(body.pieces()) == after
        assert b"".join(spool.pieces()) == before
    assert (body.length, spool.length) == (len(after), len(before))
    spool.close()
