"""X25519, AES-256-GCM and ChaCha20-Poly1305, in nothing but Python: slow, and in the open.

Written from RFC 7748, FIPS 197 with NIST SP 800-38D, and RFC 8439. For tests: it takes no care to hide its timing.
"""

import struct

P = 2**255 - 19


def x25519(secret: bytes, point: bytes) -> bytes:
    """RFC 7748, section 5."""
    k = bytearray(secret)
    k[0] &= 248
    k[31] = k[31] & 127 | 64
    scalar = int.from_bytes(k, "little")
    u = int.from_bytes(point, "little") & (1 << 255) - 1
    x2, z2, x3, z3, swap = 1, 0, u, 1, 0
    for t in range(254, -1, -1):
        bit = scalar >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


BASE = (9).to_bytes(32, "little")


def public_key(secret: bytes) -> bytes:
    return x25519(secret, BASE)


def _sbox() -> bytes:
    box, p, q = bytearray(256), 1, 1
    while True:
        p = p ^ (p << 1 & 0xFF) ^ (0x1B if p & 0x80 else 0)
        q ^= q << 1
        q ^= q << 2
        q ^= q << 4
        q &= 0xFF
        if q & 0x80:
            q ^= 0x09
        rotated = q
        for shift in (1, 2, 3, 4):
            rotated ^= (q << shift | q >> 8 - shift) & 0xFF
        box[p] = rotated ^ 0x63
        if p == 1:
            break
    box[0] = 0x63
    return bytes(box)


SBOX = _sbox()
DOUBLE = bytes((b << 1 ^ (0x1B if b & 0x80 else 0)) & 0xFF for b in range(256))
# Of each byte of a column, what it adds to the new column: one table for each row.
_T = [[0] * 256 for _ in range(4)]
for _b in range(256):
    _s = SBOX[_b]
    _d = DOUBLE[_s]
    for _row, _bytes in enumerate(([_d, _s, _s, _d ^ _s], [_d ^ _s, _d, _s, _s], [_s, _d ^ _s, _d, _s], [_s, _s, _d ^ _s, _d])):
        _T[_row][_b] = int.from_bytes(bytes(_bytes), "big")


class Aes256:
    """FIPS 197, encryption only."""

    def __init__(self, key: bytes):
        words = [int.from_bytes(key[i : i + 4], "big") for i in range(0, 32, 4)]
        rcon = 1
        for i in range(8, 60):
            t = words[-1]
            if i % 8 == 0:
                t = (t << 8 | t >> 24) & 0xFFFFFFFF
            if i % 4 == 0:
                t = int.from_bytes(bytes(SBOX[b] for b in t.to_bytes(4, "big")), "big")
            if i % 8 == 0:
                t ^= rcon << 24
                rcon <<= 1
            words.append(words[i - 8] ^ t)
        self.words = words

    def encrypt(self, block: bytes) -> bytes:
        w = self.words
        s = [a ^ b for a, b in zip(struct.unpack(">4I", block), w)]
        for rnd in range(4, 56, 4):
            s = [
                _T[0][s[i] >> 24] ^ _T[1][s[(i + 1) % 4] >> 16 & 255] ^ _T[2][s[(i + 2) % 4] >> 8 & 255] ^ _T[3][s[(i + 3) % 4] & 255] ^ w[rnd + i]
                for i in range(4)
            ]
        out = [
            (SBOX[s[i] >> 24] << 24 | SBOX[s[(i + 1) % 4] >> 16 & 255] << 16 | SBOX[s[(i + 2) % 4] >> 8 & 255] << 8 | SBOX[s[(i + 3) % 4] & 255]) ^ w[56 + i]
            for i in range(4)
        ]
        return struct.pack(">4I", *out)


class NotAuthentic(Exception):
    """The tag is another one."""


class AesGcm:
    """SP 800-38D, with nonces of 12 bytes. Noise: 4 zero bytes, 8 bytes big-endian."""

    def __init__(self, key: bytes):
        self.aes = Aes256(key)
        # Multiplication by H of each bit, highest first.
        h = int.from_bytes(self.aes.encrypt(bytes(16)), "big")
        self.bits = []
        for _ in range(128):
            self.bits.append(h)
            h = h >> 1 ^ (0xE1 << 120 if h & 1 else 0)

    @staticmethod
    def nonce(n: int) -> bytes:
        return bytes(4) + n.to_bytes(8, "big")

    def _times_h(self, y: int) -> int:
        z, i = 0, 127
        while y:
            if y & 1:
                z ^= self.bits[i]
            y >>= 1
            i -= 1
        return z

    def _stream(self, nonce: bytes, data: bytes) -> bytes:
        blocks = range(2, 2 + (len(data) + 15) // 16)
        key = b"".join(self.aes.encrypt(nonce + counter.to_bytes(4, "big")) for counter in blocks)
        return bytes(a ^ b for a, b in zip(data, key))

    def _tag(self, nonce: bytes, aad: bytes, ciphertext: bytes) -> bytes:
        padded = aad + bytes(-len(aad) % 16) + ciphertext + bytes(-len(ciphertext) % 16) + struct.pack(">QQ", len(aad) * 8, len(ciphertext) * 8)
        y = 0
        for i in range(0, len(padded), 16):
            y = self._times_h(y ^ int.from_bytes(padded[i : i + 16], "big"))
        return (y ^ int.from_bytes(self.aes.encrypt(nonce + b"\0\0\0\1"), "big")).to_bytes(16, "big")

    def seal(self, n: int, aad: bytes, plaintext: bytes) -> bytes:
        nonce = self.nonce(n)
        ciphertext = self._stream(nonce, plaintext)
        return ciphertext + self._tag(nonce, aad, ciphertext)

    def open(self, n: int, aad: bytes, sealed: bytes) -> bytes:
        nonce, ciphertext, tag = self.nonce(n), sealed[:-16], sealed[-16:]
        if len(sealed) < 16 or self._tag(nonce, aad, ciphertext) != tag:
            raise NotAuthentic
        return self._stream(nonce, ciphertext)


def _quarter(s, a, b, c, d):
    for x, y, z, r in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[x] = s[x] + s[y] & 0xFFFFFFFF
        t = s[z] ^ s[x]
        s[z] = (t << r | t >> 32 - r) & 0xFFFFFFFF


def _chacha_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    start = list(struct.unpack("<16I", b"expand 32-byte k" + key + counter.to_bytes(4, "little") + nonce))
    s = start[:]
    for _ in range(10):
        for i in range(4):
            _quarter(s, i, i + 4, i + 8, i + 12)
        for i in range(4):
            _quarter(s, i, (i + 1) % 4 + 4, (i + 2) % 4 + 8, (i + 3) % 4 + 12)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(s, start)))


class ChaChaPoly:
    """RFC 8439. Noise: 4 zero bytes, 8 bytes little-endian."""

    def __init__(self, key: bytes):
        self.key = key

    @staticmethod
    def nonce(n: int) -> bytes:
        return bytes(4) + n.to_bytes(8, "little")

    def _stream(self, nonce: bytes, data: bytes) -> bytes:
        key = b"".join(_chacha_block(self.key, 1 + i, nonce) for i in range((len(data) + 63) // 64))
        return bytes(a ^ b for a, b in zip(data, key))

    def _tag(self, nonce: bytes, aad: bytes, ciphertext: bytes) -> bytes:
        one_time = _chacha_block(self.key, 0, nonce)[:32]
        r = int.from_bytes(one_time[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
        padded = aad + bytes(-len(aad) % 16) + ciphertext + bytes(-len(ciphertext) % 16) + struct.pack("<QQ", len(aad), len(ciphertext))
        a = 0
        for i in range(0, len(padded), 16):
            a = (a + int.from_bytes(padded[i : i + 16] + b"\1", "little")) * r % (2**130 - 5)
        return (a + int.from_bytes(one_time[16:], "little") & 2**128 - 1).to_bytes(16, "little")

    def seal_with(self, nonce: bytes, aad: bytes, plaintext: bytes) -> bytes:
        ciphertext = self._stream(nonce, plaintext)
        return ciphertext + self._tag(nonce, aad, ciphertext)

    def seal(self, n: int, aad: bytes, plaintext: bytes) -> bytes:
        return self.seal_with(self.nonce(n), aad, plaintext)

    def open(self, n: int, aad: bytes, sealed: bytes) -> bytes:
        nonce, ciphertext, tag = self.nonce(n), sealed[:-16], sealed[-16:]
        if len(sealed) < 16 or self._tag(nonce, aad, ciphertext) != tag:
            raise NotAuthentic
        return self._stream(nonce, ciphertext)


def check() -> None:
    """The published vectors."""
    h = bytes.fromhex
    # RFC 7748, sections 5.2 and 6.1.
    assert x25519(
        h("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
        h("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"),
    ) == h("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552")
    alice = h("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    assert public_key(alice) == h("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    # FIPS 197, appendix C.3.
    assert Aes256(bytes(range(32))).encrypt(h("00112233445566778899aabbccddeeff")) == h("8ea2b7ca516745bfeafc49904b496089")
    # The GCM specification (McGrew, Viega), test cases 13 and 14: key, nonce and plaintext of zeros.
    assert AesGcm(bytes(32)).seal(0, b"", b"") == h("530f8afbc74536b9a963b4f1c4cb738b")
    assert AesGcm(bytes(32)).seal(0, b"", bytes(16)) == h("cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919")
    # RFC 8439, section 2.8.2.
    text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
    sealed = ChaChaPoly(bytes(range(0x80, 0xA0))).seal_with(h("070000004041424344454647"), h("50515253c0c1c2c3c4c5c6c7"), text)
    assert sealed[:16] == h("d31a8d34648e60db7b86afbc53ef7ec2") and sealed[-16:] == h("1ae10b594f09e26a7e902ecbd0600691")
