//! Unix-domain sockets, as far as they touch what the whole process has: its umask and its open files.
//!
//! Set-up: a process of its own, and one test after the other. Claim: a socket's file has the mode that was asked for whatever the umask
//! is, and nobody can connect before it has; descriptors that a stranger sends along with his bytes are not kept.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use common::node::Node;
use common::place::{Place, listening};
use common::raw::{Hello, READY, header};
use common::{Wire, open_files};
use corecast::Config;
use rustix::fs::Mode;

/// Tests run side by side, and these must not.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn the_file_has_its_mode_whatever_the_umask_says() {
    let _alone = ALONE.lock();
    let place = Place::new();
    let address = place.address("node.sock");
    let path = place.path("node.sock");
    let mode = || fs::symlink_metadata(&path).map(|file| file.permissions().mode() & 0o777);
    for (umask, asked) in [(0o000, None), (0o000, Some(0o640)), (0o077, Some(0o666)), (0o022, Some(0o660)), (0o777, Some(0o600))] {
        let mut config = listening(Wire::Plaintext, &address);
        config.io.unix_mode = asked.unwrap_or(config.io.unix_mode);
        let asked = asked.unwrap_or(0o600);
        let over = AtomicBool::new(false);
        let seen = |mode: u32| assert_eq!(mode & !asked, 0, "{mode:o} with umask {umask:o}");
        let node = std::thread::scope(|scope| {
            // At no time is it wider.
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    mode().map_or((), seen)
                }
            });
            let before = rustix::process::umask(Mode::from_raw_mode(umask));
            let node = Node::report(config);
            rustix::process::umask(before);
            over.store(true, Ordering::Relaxed);
            node
        });
        assert_eq!(mode().unwrap(), asked, "with umask {umask:o}");
        UnixStream::connect(&path).unwrap();
        node.finish();
    }
    for mode in [0o1777, u32::MAX] {
        let mut config = listening(Wire::Plaintext, &address);
        config.io.unix_mode = mode;
        assert!(matches!(Config::validate(&config), Err(error) if error.field == "io.unix_mode"));
    }
}

#[test]
fn descriptors_that_a_stranger_sends_along_are_not_kept() {
    let _alone = ALONE.lock();
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let place = Place::new();
    let address = place.address("node.sock");
    let mut server = Node::report(listening(Wire::Plaintext, &address));
    let before = open_files();
    let mut raw = UnixStream::connect(place.path("node.sock")).unwrap();
    let greeting = Hello::node(1).greeting();
    let gift = [raw.as_fd(); 8];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    assert!(along.push(SendAncillaryMessage::ScmRights(&gift)));
    sendmsg(&raw, &[std::io::IoSlice::new(&greeting)], &mut along, SendFlags::empty()).unwrap();
    raw.read_exact(&mut [0; 96]).unwrap();
    raw.write_all(&header(0, READY, 0, 0)).unwrap();
    let (peer, _) = server.connected();
    // Both ends of the connection.
    assert_eq!(open_files(), before + 2);
    drop(raw);
    server.closed(peer);
    server.finish();
}
