//! A directory for the sockets of one test.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use corecast::{Address, Config};

use super::Wire;

/// It is gone with the test.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("corecast-unix-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn address(&self, name: &str) -> Address {
        Address::unix(self.path(name)).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server's configuration, which listens there and nowhere else, and exempts nobody.
pub(crate) fn listening(wire: Wire, address: &Address) -> Config {
    let mut config = wire.listening();
    config.listen = vec![address.clone()];
    config.addresses.exempt.clear();
    config
}
