"""The golden vectors of WIRE.md, section 7.5: computed here, by what was written from the text alone."""

import re
import struct

from noise import HELLO, Handshake, preamble
from primitives import public_key

A, B = bytes(range(0x40, 0x60)), bytes(range(0x80, 0xA0))
A_EPHEMERAL, B_EPHEMERAL = bytes(range(0xA0, 0xC0)), bytes(range(0xC0, 0xE0))
NETWORK, SECRET = bytes(range(0x20)), bytes(range(0xE0, 0x100))
A_HELLO = HELLO.pack(0x0807060504030201, 0, 65_536, 7, 0)
B_HELLO = HELLO.pack(0x1817161514131211, 0, 65_536, 0, 0)
READY = bytes.fromhex("0000000010000000")
DATA = bytes.fromhex("0500000001020201") + b"hello"


def ping(nonce: int) -> bytes:
    return bytes.fromhex("0800000011000000") + struct.pack("<Q", nonce)


def session(suite, psk):
    """Every byte of one session up to a message each way, by name; and A's sending direction."""
    ours = Handshake(suite, A, A_EPHEMERAL, NETWORK, public_key(B), psk)
    theirs = Handshake(suite, B, B_EPHEMERAL, NETWORK, None, psk)
    out = {}
    first = ours.write_1()
    theirs.read_1(first)
    out["message-1"] = preamble(suite) + first
    second = theirs.write_2(B_HELLO)
    assert ours.read_2(second) == B_HELLO
    out["message-2"] = preamble(suite) + second
    out["message-3"] = ours.write_3(A_HELLO)
    assert theirs.read_3(out["message-3"]) == A_HELLO
    (a_sends, a_takes), (b_sends, b_takes) = ours.split(), theirs.split()
    for name, frame, seals, opens in (
        ("ready-b", READY, b_sends, a_takes),
        ("ready-a", READY, a_sends, b_takes),
        ("data-a", DATA, a_sends, b_takes),
        ("data-b", DATA, b_sends, a_takes),
    ):
        out[name] = seals.seal(frame)
        assert opens.open(out[name][2:]) == frame
    return out, a_sends


def vectors():
    out = {"public-a": public_key(A), "public-b": public_key(B), "public-ephemeral-a": public_key(A_EPHEMERAL)}
    out["public-ephemeral-b"] = public_key(B_EPHEMERAL)
    for prefix, suite, psk in (("aes", 1, None), ("chacha", 2, None), ("aes-secret", 1, SECRET), ("chacha-secret", 2, SECRET)):
        said, a_sends = session(suite, psk)
        out.update({f"{prefix}-{name}": data for name, data in said.items()})
        if prefix in ("aes", "chacha"):
            while a_sends.n < 4098:
                number = a_sends.n
                record = a_sends.seal(ping(number))
                if number >= 4095:
                    out[f"{prefix}-record-{number}"] = record
    return out


def printed() -> str:
    """As they stand in the text."""
    lines = []
    for name, data in vectors().items():
        lines.append(f"```noise {name}")
        lines += [data[i : i + 16].hex(" ") for i in range(0, len(data), 16)]
        lines.append("```\n")
    return "\n".join(lines)


def in_text(path) -> dict:
    """Those that the text has."""
    with open(path, encoding="utf-8") as text:
        blocks = re.findall(r"```noise (\S+)\n(.*?)```", text.read(), re.S)
    return {name: bytes.fromhex(re.sub(r"#.*", "", body)) for name, body in blocks}
