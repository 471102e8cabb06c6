"""JSON as nobody should write it: good documents, odd ones, and ones with damage."""

import json
import random
from typing import Any

from hypothesis import strategies as st

GOOD: dict[str, Any] = {
    "model": "claude-haiku-4-5",
    "max_tokens": 16,
    "messages": [{"role": "user", "content": "good day"}],
}

NASTY: tuple[bytes, ...] = (
    b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400", b"1e-400", b"-0", b"-0.0", b"01", b"1.", b".5", b"+1", b"-",
    b"1e", b"0x10", b"1_000", b"1e5", b"9" * 30, b"9" * 5000, b"18446744073709551616", b"-9223372036854775809",
    b"1" + b"0" * 308, b"1" + b"0" * 309, b"2" + b"0" * 308, b"1.7976931348623157e308", b"1.7976931348623159e308",
    b"0." + b"1" * 5000, b"true", b"false", b"null", b"True", b"None", b"undefined", b"'a'", b"a",
    b'"\\ud800"', b'"\\udc00"', b'"\\ud800\\ud800"', b'"\\udc00\\ud800"', b'"\\ud83d\\ude00"', b'"\\ud83d\\u0041"',
    b'"\\uD83D\\uDE00"', b'"\\u00"', b'"\\u00zz"', b'"\\u0000"', b'"\\x41"', b'"\\\'"', b'"\\', b'"\\"', b'"\\\\"',
    b'"\xed\xa0\x80"', b'"\xed\xb0\x80"', b'"\xff"', b'"\xc0\xaf"', b'"\xc3"', b'"\xe2\x82"', b'"\xf0\x9f\x98\x80"',
    b'"\xf4\x90\x80\x80"', b'"\xf8\x88\x80\x80\x80"', b'"\xef\xbf\xbf"', b'"\xef\xbb\xbf"', b'"\xe2\x80\xa8"',
    b'"\x00"', b'"\x1f"', b'"\x7f"', b'"\t"', b'"\n"', b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"\x0b",
    b"\x0c", b"\xc2\xa0",
    b"[]", b"{}", b"[[[[[[[[]]]]]]]]", b"[" * 130, b"[" * 130 + b"]" * 130, b"[" * 128 + b"]" * 128,
    b'{"a":' * 129 + b"1" + b"}" * 129, b"]", b"}", b"[1,]", b'{"a":1,}', b'{"a":1,"a":2}', b"{1:2}", b"{,}", b"[,]",
    b"/*c*/", b"//c\n", b"#", b" ", b"\n", b"\r\n", b"\t", b",", b":", b'"', b"\\", b'""', b'"stream":true,',
    b'"stream":false,', b'"stream":null,', b'"model":null,', b'"messages":null,', b'"max_tokens":null,',
    b'{"stream":true}',
)  # fmt: skip
"""What parsers disagree about, and pieces that break a document when put anywhere in it."""

_text = st.text(max_size=12)
_leaf = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _text
    | st.sampled_from(["stream", "model", "\ud800", "\u2028", "\x00", "é" * 40])
)
_value = st.recursive(
    _leaf, lambda below: st.lists(below, max_size=4) | st.dictionaries(_text, below, max_size=4), max_leaves=12
)
_changes = st.fixed_dictionaries(
    {}, optional={"stream": _value, "model": _value, "messages": _value, "max_tokens": _value, "x": _value, "": _value}
)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Make params: often good ones, else ones with odd members or members missing, spelled in some legal way."""
    wanted = GOOD | draw(_changes)
    for name in draw(st.sets(st.sampled_from(sorted(GOOD)), max_size=1)):
        del wanted[name]
    whole: Any = draw(st.sampled_from([wanted, wanted, wanted, wanted, [wanted], "text", None, 1]))
    text = json.dumps(whole, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, None, 1])))
    return text.encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Make a document and put nasty pieces in place of some of its bytes."""
    document = bytearray(draw(documents()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(document)))
        document[at : at + draw(st.integers(0, 3))] = draw(st.sampled_from(NASTY) | st.binary(max_size=3))
    return bytes(document)


@st.composite
def deep(draw: st.DrawFn) -> bytes:
    """Nest around the limit."""
    levels = draw(st.integers(118, 138))
    opening, closing = draw(st.sampled_from([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"[":', b"}]")]))
    nested = opening * levels + draw(st.sampled_from([b"1", b"{}", b"[]", b'"[[[["', b'"\\"[["'])) + closing * levels
    return json.dumps(GOOD).encode()[:-1] + b',"x":' + nested + b"}"


any_document = documents() | damaged() | deep() | st.sampled_from(NASTY) | st.binary(max_size=40)


def damage(chance: random.Random, raw: bytes, *, most: int = 3) -> bytes:
    """Damage bytes the quick way: replace, insert, delete, double, cut."""
    document = bytearray(raw)
    for _ in range(chance.randint(1, most)):
        at = chance.randint(0, len(document))
        match chance.randrange(6):
            case 0:
                document[at:at] = chance.choice(NASTY)
            case 1:
                document[at : at + chance.randint(1, 8)] = chance.choice(NASTY)
            case 2:
                document[at : at + chance.randint(1, 20)] = b""
            case 3:
                document[at : at + 1] = bytes([chance.randrange(256)])
            case 4:
                document[at:at] = document[at : at + chance.randint(1, 40)]
            case _:
                if chance.random() < 0.3:
                    del document[at:]
    return bytes(document)
