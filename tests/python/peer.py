"""A peer of corecast in Python, written from WIRE.md alone: standard library only.

    python3 peer.py check                       the published vectors, both sides against each other
    python3 peer.py vectors                     what WIRE.md, 7.5, has to say
    python3 peer.py compare WIRE.md             whether it does
    python3 peer.py dial  HOST PORT NODE HOW    dials an engine that echoes; HOW: talk, tamper
    python3 peer.py listen                      waits for an engine that dials, and echoes what it sends

Options before the command: --suite 1|2, --secret HEX (ours), --network HEX, --psk HEX. Prints what it is and what it saw; ends with 0 when
everything was as the text says.
"""

import argparse
import os
import socket
import struct
import sys

import noise
import primitives
import vectors

HEADER = struct.Struct("<IBBH")
DATA, READY, PING, PONG, GOODBYE = 1, 16, 17, 18, 19
VIOLATION, NOT_AUTHENTIC = 5, 18
TYPE = 0x0102


class Connection:
    """An established session."""

    def __init__(self, sock, sends, takes):
        self.sock, self.sends, self.takes, self.plain = sock, sends, takes, b""

    def write(self, plaintext):
        self.sock.sendall(self.sends.seal(plaintext))

    def record(self):
        """What the next record has in it; None at the end of the stream."""
        head = read(self.sock, 2, at_end=True)
        if head is None:
            return None
        (length,) = struct.unpack("<H", head)
        assert length >= 17, f"a record of {length} bytes"
        return self.takes.open(read(self.sock, length))

    def frame(self):
        """The next frame: kind, lane, type, payload. None at the end."""
        while len(self.plain) < 8 or len(self.plain) < 8 + HEADER.unpack(self.plain[:8])[0]:
            more = self.record()
            if more is None:
                assert not self.plain, "the stream ended within a frame"
                return None
            self.plain += more
        length, kind, flags, message_type = HEADER.unpack(self.plain[:8])
        assert length <= 32_768 and flags & 0xF8 == 0, (length, flags)
        payload, self.plain = self.plain[8 : 8 + length], self.plain[8 + length :]
        return kind, flags & 3, message_type, payload


def read(sock, count, at_end=False):
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            if at_end and not data:
                return None
            raise SystemExit(f"the stream ended after {len(data)} of {count} bytes")
        data += more
    return data


def frame(kind, payload=b"", lane=0, message_type=0):
    return HEADER.pack(len(payload), kind, lane, message_type) + payload


def hello(channel):
    return noise.HELLO.pack(int.from_bytes(os.urandom(8), "little"), 0, 1 << 20, channel, 0)


def check_hello(data):
    _, _, max_message, channel, reserved = noise.HELLO.unpack(data)
    assert max_message > 0 and reserved == 0
    return channel


def dial(args, host, port, node):
    """The dialler's side of the handshake."""
    sock = socket.create_connection((host, port), timeout=20)
    shake = noise.Handshake(args.suite, args.secret, os.urandom(32), args.network, bytes.fromhex(node), args.psk)
    sock.sendall(noise.preamble(args.suite) + shake.write_1())
    opening = read(sock, 8)
    if opening[5] == 255:
        raise SystemExit(f"refused: {opening[6]}")
    assert opening == noise.preamble(args.suite), opening.hex()
    assert check_hello(shake.read_2(read(sock, noise.ANSWER - 8))) == 0
    sock.sendall(shake.write_3(hello(channel=3)))
    connection = Connection(sock, *shake.split())
    assert connection.record() == frame(READY), "the acceptor's Ready, alone in its record"
    connection.write(frame(READY))
    return connection


def listen(args):
    """The acceptor's side."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"{primitives.public_key(args.secret).hex()} {listener.getsockname()[1]}", flush=True)
    sock, _ = listener.accept()
    sock.settimeout(20)
    shake = noise.Handshake(args.suite, args.secret, os.urandom(32), args.network, None, args.psk)
    opening = read(sock, noise.OPENING)
    assert opening[:8] == noise.preamble(args.suite), opening.hex()
    shake.read_1(opening[8:])
    sock.sendall(noise.preamble(args.suite) + shake.write_2(hello(channel=0)))
    check_hello(shake.read_3(read(sock, noise.THIRD)))
    connection = Connection(sock, *shake.split())
    connection.write(frame(READY))
    assert connection.record() == frame(READY), "the dialler's Ready, alone in its record"
    return connection


def echoed(connection, body):
    """Sends a message and waits for it to come back; answers pings on the way."""
    sent = frame(DATA, body, 2, TYPE)
    connection.write(sent)
    while True:
        kind, lane, message_type, payload = connection.frame()
        if kind == PING:
            connection.write(frame(PONG, payload))
            continue
        assert (kind, lane, message_type, payload) == (DATA, 2, TYPE, body), (kind, lane, message_type, len(payload))
        return


def talk(connection):
    """Messages of all lengths, a ping, past the change of keys in both directions, and a farewell."""
    for length in (0, 1, 5, 1000, 16_384):
        echoed(connection, bytes(i % 251 for i in range(length)))
    connection.write(frame(PING, struct.pack("<Q", 77)))
    assert connection.frame() == (PONG, 0, 0, struct.pack("<Q", 77))
    while min(connection.sends.n, connection.takes.n) < noise.REKEY + 10:
        echoed(connection, struct.pack("<Q", connection.sends.n))
    # A frame cut over two records, and two frames in one.
    whole = frame(DATA, b"first", 2, TYPE) + frame(DATA, b"second", 2, TYPE)
    connection.write(whole[:3])
    connection.write(whole[3:])
    assert [connection.frame()[3] for _ in range(2)] == [b"first", b"second"]
    connection.write(frame(GOODBYE, struct.pack("<HHI", 0, 0, 0)))
    connection.sock.shutdown(socket.SHUT_WR)
    assert connection.frame() is None, "the engine says nothing after a goodbye"
    return f"talked: {connection.sends.n} records there, {connection.takes.n} back"


def tamper(connection):
    """One bit of a record is changed: what came before it is answered, and then the connection ends."""
    echoed(connection, b"before")
    record = bytearray(connection.sends.seal(frame(DATA, b"changed", 2, TYPE)))
    record[-20] ^= 1
    connection.sock.sendall(record)
    kind, _, _, payload = connection.frame()
    code, detail, _ = struct.unpack("<HHI", payload)
    assert (kind, code, detail) == (GOODBYE, VIOLATION, NOT_AUTHENTIC), (kind, code, detail)
    assert connection.frame() is None
    return "cut off: rule 18"


def echo(connection):
    """Returns what comes, until the other side says goodbye."""
    messages = 0
    while True:
        kind, lane, message_type, payload = connection.frame()
        if kind == DATA:
            connection.write(frame(DATA, payload, lane, message_type))
            messages += 1
        elif kind == PING:
            connection.write(frame(PONG, payload))
        elif kind == GOODBYE:
            connection.sock.shutdown(socket.SHUT_WR)
            return f"echoed: {messages}"
        else:
            raise SystemExit(f"a frame of kind {kind}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", type=int, default=1, choices=(1, 2))
    parser.add_argument("--secret", type=bytes.fromhex, default=vectors.A)
    parser.add_argument("--network", type=bytes.fromhex, default=bytes(32))
    parser.add_argument("--psk", type=bytes.fromhex, default=None)
    parser.add_argument("command", choices=("check", "vectors", "compare", "dial", "listen"))
    parser.add_argument("rest", nargs="*")
    args = parser.parse_args()
    if args.command == "check":
        primitives.check()
        noise.check()
        print("the published vectors hold")
    elif args.command == "vectors":
        sys.stdout.write(vectors.printed())
    elif args.command == "compare":
        computed, written = vectors.vectors(), vectors.in_text(args.rest[0])
        wrong = sorted(name for name in computed.keys() | written.keys() if computed.get(name) != written.get(name))
        if wrong:
            raise SystemExit(f"the text is not what was computed from it: {', '.join(wrong)}")
        print(f"{len(computed)} vectors are as computed")
    elif args.command == "dial":
        host, port, node, how = args.rest
        print({"talk": talk, "tamper": tamper}[how](dial(args, host, int(port), node)))
    else:
        print(echo(listen(args)))


if __name__ == "__main__":
    main()
