//! The loads in every protocol, against stand-ins for the servers.

use super::servers::StandIn;
use super::*;

const BARE_LESS: [Protocol; 5] = [Protocol::Nats, Protocol::Redis, Protocol::Zmtp, Protocol::MessageIo, Protocol::Json];

fn run(protocol: Protocol, load: Load, body_len: usize) {
    let (connections, subscribers) = match load {
        Load::Fanout { subscribers, .. } | Load::OpenFanout { subscribers, .. } if protocol == Protocol::Zmtp => (1, subscribers),
        _ => (load.connections(), 0),
    };
    let server = StandIn::start(protocol, load.mode(), connections, subscribers);
    let config = ClientConfig { protocol, publishing: server.publishing, ..config(server.address, load, body_len) };
    let figures = measure(&config).unwrap_or_else(|error| panic!("{protocol:?} {load:?}: {error}"));
    assert!(figures.faults.none(), "{protocol:?} {load:?}: {figures:?}");
    assert!(figures.deliveries > 0 || matches!(load, Load::Idle { .. }), "{protocol:?} {load:?}: {figures:?}");
}

#[test]
fn every_protocol_echoes() {
    for protocol in BARE_LESS {
        run(protocol, Load::Echo { connections: 3, in_flight: 1 }, 32);
        run(protocol, Load::Echo { connections: 2, in_flight: 30 }, 300);
        run(protocol, Load::OpenEcho { connections: 2, rate: 500 }, 32);
    }
}

#[test]
fn every_protocol_fans_out() {
    for protocol in BARE_LESS {
        run(protocol, Load::Fanout { subscribers: 4, outstanding: 1, stuck: 0 }, 128);
        run(protocol, Load::Fanout { subscribers: 3, outstanding: 16, stuck: 0 }, 1024);
        run(protocol, Load::OpenFanout { subscribers: 3, rate: 200 }, 128);
    }
}

#[test]
fn sinks_and_idle_connections_are_there_where_the_protocol_has_them() {
    for protocol in BARE_LESS {
        run(protocol, Load::Idle { connections: 5 }, 32);
        let sink = Load::Sink { connections: 2, in_flight: 128 };
        if protocol.lacks(sink).is_none() {
            run(protocol, sink, 64);
        }
    }
    let nats = ClientConfig { protocol: Protocol::Nats, ..config(nowhere(), Load::Sink { connections: 1, in_flight: 64 }, 32) };
    assert!(measure(&nats).unwrap_err().to_string().contains("NATS has no sink"));
}

/// A buffer of each connection's own, and messages that come in several reads.
#[test]
fn messages_longer_than_a_read_come_whole() {
    let load = Load::Echo { connections: 2, in_flight: 2 };
    for protocol in [Protocol::Nats, Protocol::Redis, Protocol::Zmtp, Protocol::Json] {
        run(protocol, load, 300_000);
    }
}

/// A server that greets with this and then says nothing more.
fn greeting_of(protocol: Protocol, greeting: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(greeting).unwrap();
        // Until the client has gone.
        while stream.read(&mut [0; 512]).is_ok_and(|count| count > 0) {}
    });
    let config = ClientConfig { protocol, ..config(address, Load::Echo { connections: 1, in_flight: 1 }, 32) };
    let error = measure(&config).unwrap_err().to_string();
    thread.join().unwrap();
    error
}

#[test]
fn a_server_that_speaks_something_else_is_named_for_it() {
    assert!(greeting_of(Protocol::Nats, b"HTTP/1.1 400 Bad Request\r\n").contains("begins with INFO"));
    assert!(greeting_of(Protocol::Redis, b"-NOAUTH Authentication required.\r\n").contains("NOAUTH"));
    assert!(greeting_of(Protocol::Zmtp, &[b'x'; 64]).contains("does not speak ZMTP 3"));
    let mut curve = [0; 64];
    (curve[0], curve[9], curve[10], curve[12]) = (0xFF, 0x7F, 3, b'C');
    let curve: &'static [u8] = Box::leak(Box::new(curve));
    assert!(greeting_of(Protocol::Zmtp, curve).contains("another mechanism"));
}
