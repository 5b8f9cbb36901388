"""Noise XK and corecast's records, written from WIRE.md (3.2 and 5.7) and the Noise specification, revision 34."""

import hashlib
import hmac
import struct

from primitives import AesGcm, ChaChaPoly, NotAuthentic, public_key, x25519

MAGIC = bytes.fromhex("cc435253")
CIPHERS = {1: ("AESGCM", AesGcm), 2: ("ChaChaPoly", ChaChaPoly)}
HELLO = struct.Struct("<QQIHH")
# Bytes of what each side reads: preamble and message 1, preamble and message 2, message 3, a refusal.
OPENING, ANSWER, THIRD, REFUSAL = 56, 80, 88, 16
REKEY = 4096


class WeakKey(Exception):
    """A shared secret of zero."""


def preamble(suite: int) -> bytes:
    return MAGIC + bytes([1, suite, 0, 0])


def hkdf(chaining: bytes, material: bytes, outputs: int) -> list:
    temp = hmac.digest(chaining, material, "sha256")
    out, last = [], b""
    for i in range(1, outputs + 1):
        last = hmac.digest(temp, last + bytes([i]), "sha256")
        out.append(last)
    return out


def dh(secret: bytes, public: bytes) -> bytes:
    shared = x25519(secret, public)
    if shared == bytes(32):
        raise WeakKey
    return shared


class Handshake:
    """One side. The specification's SymmetricState and HandshakeState in one; only what XK and XKpsk0 need."""

    def __init__(self, suite, secret, ephemeral, network, remote=None, psk=None):
        name, self.cipher = CIPHERS[suite]
        pattern = "XKpsk0" if psk else "XK"
        protocol = f"Noise_{pattern}_25519_{name}_SHA256".encode()
        self.h = protocol + bytes(32 - len(protocol)) if len(protocol) <= 32 else hashlib.sha256(protocol).digest()
        self.ck, self.key, self.n = self.h, None, 0
        self.suite, self.s, self.e, self.psk = suite, secret, ephemeral, psk
        self.dialler = remote is not None
        self.rs, self.re = remote, None
        self.mix_hash(preamble(suite) + network)
        # Pre-message: the acceptor's static key.
        self.mix_hash(remote if self.dialler else public_key(secret))

    def mix_hash(self, data):
        self.h = hashlib.sha256(self.h + data).digest()

    def mix_key(self, material):
        self.ck, key = hkdf(self.ck, material, 2)
        self.key, self.n = self.cipher(key), 0

    def mix_psk(self):
        self.ck, h, key = hkdf(self.ck, self.psk, 3)
        self.mix_hash(h)
        self.key, self.n = self.cipher(key), 0

    def encrypt(self, plaintext):
        sealed = self.key.seal(self.n, self.h, plaintext)
        self.n += 1
        self.mix_hash(sealed)
        return sealed

    def decrypt(self, sealed):
        plaintext = self.key.open(self.n, self.h, sealed)
        self.n += 1
        self.mix_hash(sealed)
        return plaintext

    def ours(self):
        """Token e, sent."""
        public = public_key(self.e)
        self.mix_hash(public)
        if self.psk:
            self.mix_key(public)
        return public

    def theirs(self, public):
        """Token e, received."""
        self.re = public
        self.mix_hash(public)
        if self.psk:
            self.mix_key(public)

    def write_1(self):
        if self.psk:
            self.mix_psk()
        out = self.ours()
        self.mix_key(dh(self.e, self.rs))
        return out + self.encrypt(b"")

    def read_1(self, message):
        if self.psk:
            self.mix_psk()
        self.theirs(message[:32])
        self.mix_key(dh(self.s, self.re))
        assert self.decrypt(message[32:]) == b""

    def write_2(self, hello):
        out = self.ours()
        self.mix_key(dh(self.e, self.re))
        return out + self.encrypt(hello)

    def read_2(self, message):
        self.theirs(message[:32])
        self.mix_key(dh(self.e, self.re))
        return self.decrypt(message[32:])

    def write_3(self, hello):
        out = self.encrypt(public_key(self.s))
        self.mix_key(dh(self.s, self.re))
        return out + self.encrypt(hello)

    def read_3(self, message):
        self.rs = self.decrypt(message[:48])
        self.mix_key(dh(self.e, self.rs))
        return self.decrypt(message[48:])

    def split(self):
        """What is sent with, and what is received with."""
        first, second = hkdf(self.ck, b"", 2)
        keys = (first, second) if self.dialler else (second, first)
        return Records(self.cipher, keys[0]), Records(self.cipher, keys[1])


class Records:
    """One direction."""

    def __init__(self, cipher, key):
        self.cipher, self.key, self.n = cipher, cipher(key), 0

    def counted(self):
        self.n += 1
        if self.n % REKEY == 0:
            self.key = self.cipher(self.key.seal(2**64 - 1, b"", bytes(32))[:32])

    def seal(self, plaintext):
        sealed = self.key.seal(self.n, b"", plaintext)
        self.counted()
        return struct.pack("<H", len(sealed)) + sealed

    def open(self, sealed):
        plaintext = self.key.open(self.n, b"", sealed)
        self.counted()
        return plaintext


def check():
    """Both sides against each other, in each way, and what must fail."""
    a, b, network = bytes(range(0x40, 0x60)), bytes(range(0x80, 0xA0)), bytes(32)
    for suite in CIPHERS:
        for psk in (None, bytes(range(32))):
            ours = Handshake(suite, a, bytes([1] * 32), network, public_key(b), psk)
            theirs = Handshake(suite, b, bytes([2] * 32), network, None, psk)
            theirs.read_1(ours.write_1())
            assert ours.read_2(theirs.write_2(b"hello of b")) == b"hello of b"
            assert theirs.read_3(ours.write_3(b"hello of a")) == b"hello of a"
            assert theirs.rs == public_key(a)
            (send, _), (_, receive) = ours.split(), theirs.split()
            record = send.seal(b"data")
            try:
                receive.open(record[2:-1] + bytes([record[-1] ^ 1]))
                raise SystemExit("a changed record was opened")
            except NotAuthentic:
                pass
            assert receive.open(record[2:]) == b"data"
    wrong = Handshake(1, b, bytes([2] * 32), network, None, bytes(range(32)))
    try:
        wrong.read_1(Handshake(1, a, bytes([1] * 32), network, public_key(b)).write_1())
        raise SystemExit("another secret was taken")
    except NotAuthentic:
        pass
