//! Our own keys: made, kept in files, and never shown.
//!
//! This module owns what a key file looks like and what is checked of it. It does not know what the keys are used for. Secrets are wiped
//! when the last copy of them is dropped, and no formatting prints them.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::id::NodeId;

/// What a key file begins with.
const HEADING: &str = "corecast-identity-1 ";
/// Bytes of a key file: the heading, 64 hexadecimal digits and a line's end.
const FILE_LEN: usize = HEADING.len() + 64 + 1;

/// A node's key pair: an X25519 secret (RFC 7748), and the public key that is the node's [`NodeId`].
///
/// It is for corecast alone: do not use a key here that signs or decrypts anything else. Cloning shares the secret, it does not copy it.
///
/// To change a node's key, make a new one, have the other nodes allow both, restart the node with the new one, and have them disallow
/// the old one: a node id *is* the key, so a new key is a new node.
#[derive(Clone)]
pub struct Identity(Arc<Keys>);

struct Keys {
    /// Wiped when it is dropped.
    secret: StaticSecret,
    node: NodeId,
}

impl Identity {
    /// A new one, from the system's randomness. Fails only where the system has none to give.
    pub fn generate() -> io::Result<Self> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut())?;
        Ok(Self::from_secret(*secret))
    }

    /// The one with this secret: 32 bytes from a cryptographic source. Everything about it follows from them.
    #[must_use]
    pub fn from_secret(secret: [u8; 32]) -> Self {
        let secret = StaticSecret::from(secret);
        let node = NodeId(PublicKey::from(&secret).to_bytes());
        Self(Arc::new(Keys { secret, node }))
    }

    /// The node that has this identity.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.0.node
    }

    /// The secret. For the handshake alone.
    pub(crate) fn secret(&self) -> &[u8; 32] {
        self.0.secret.as_bytes()
    }

    /// Reads it from a file that [`Identity::save`] has written. On Unix the file must be readable by its owner alone (mode 0600 or less).
    pub fn load(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        let fail = |problem| IdentityError { path: path.to_owned(), problem };
        let file = File::open(path).map_err(|source| fail(KeyFileProblem::Io(source)))?;
        check_mode(&file).map_err(fail)?;
        let mut text = Zeroizing::new(String::with_capacity(FILE_LEN + 1));
        // Made to measure: a longer file is none of ours, and growing would leave copies behind.
        let read = file.take(FILE_LEN as u64 + 1).read_to_string(&mut text);
        match read {
            Ok(FILE_LEN) => parse(&text).map(Self::from_secret).ok_or_else(|| fail(KeyFileProblem::Malformed)),
            Ok(_) => Err(fail(KeyFileProblem::Malformed)),
            Err(error) if error.kind() == ErrorKind::InvalidData => Err(fail(KeyFileProblem::Malformed)),
            Err(error) => Err(fail(KeyFileProblem::Io(error))),
        }
    }

    /// Reads it from a file, or makes one and writes it there, if there is no such file. Where two processes do this at once, both get the
    /// one that was written.
    pub fn load_or_generate(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        match Self::load(path) {
            Err(IdentityError { problem: KeyFileProblem::Io(error), .. }) if error.kind() == ErrorKind::NotFound => {}
            other => return other,
        }
        let fail = |source| IdentityError { path: path.to_owned(), problem: KeyFileProblem::Io(source) };
        let identity = Self::generate().map_err(fail)?;
        match identity.save(path) {
            Ok(()) => Ok(identity),
            Err(IdentityError { problem: KeyFileProblem::Io(error), .. }) if error.kind() == ErrorKind::AlreadyExists => Self::load(path),
            Err(error) => Err(error),
        }
    }

    /// Writes it to a new file with mode 0600: whole, or not at all. A file that is there already is left as it is, which is an error.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), IdentityError> {
        let path = path.as_ref();
        self.write(path).map_err(|source| IdentityError { path: path.to_owned(), problem: KeyFileProblem::Io(source) })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = Zeroizing::new(String::with_capacity(FILE_LEN));
        text.push_str(HEADING);
        for byte in self.secret() {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(digit), 16).expect("a nibble is a digit"));
            }
        }
        text.push('\n');
        // Under another name first, so that nobody ever reads half a key. A link, unlike a rename, does not replace what is there.
        let mut name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_owned();
        name.push(format!(".{:016x}.new", getrandom::u64()?));
        let unfinished = path.with_file_name(name);
        let mut file = create_private(&unfinished)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| fs::hard_link(&unfinished, path));
        // A name without a key of its own: whether it goes says nothing about the key.
        let _ = fs::remove_file(&unfinished);
        written
    }
}

fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn check_mode(file: &File) -> Result<(), KeyFileProblem> {
    use std::os::unix::fs::MetadataExt;
    let mode = file.metadata().map_err(KeyFileProblem::Io)?.mode() & 0o777;
    if mode & 0o177 == 0 { Ok(()) } else { Err(KeyFileProblem::Mode(mode)) }
}

#[cfg(not(unix))]
fn check_mode(_: &File) -> Result<(), KeyFileProblem> {
    Ok(())
}

fn parse(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(HEADING)?.strip_suffix('\n')?;
    crate::id::parse_hex(digits).ok()
}

/// It names the node, and nothing else.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.0.node)
    }
}

/// A secret that all nodes of a network share: 32 bytes from a cryptographic source. It goes into every handshake, so that who does not
/// know it gets no further than the first message. It does not take the place of the allow-list: it is as secret as its least careful
/// holder.
#[derive(Clone)]
pub struct NetworkSecret(Arc<Zeroizing<[u8; 32]>>);

impl NetworkSecret {
    /// The one with these bytes.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(Arc::new(Zeroizing::new(secret)))
    }

    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for NetworkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkSecret(..)")
    }
}

/// Why a key file could not be read or written.
#[derive(Debug)]
pub struct IdentityError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: KeyFileProblem,
}

/// What is wrong with a key file.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeyFileProblem {
    /// What the system said. `AlreadyExists`: nothing was written over what is there.
    Io(io::Error),
    /// Others than its owner may read or write it: its mode.
    Mode(u32),
    /// It is no key file.
    Malformed,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.problem {
            KeyFileProblem::Io(source) => write!(f, "key file {path}: {source}"),
            KeyFileProblem::Mode(mode) => {
                write!(
                    f,
                    "key file {path} has mode {mode:04o}, so others may have read it: make a new key, or chmod 600 if it is still secret"
                )
            }
            KeyFileProblem::Malformed => write!(f, "{path} is no key file: expected one line, {HEADING:?} and 64 hexadecimal digits"),
        }
    }
}

impl std::error::Error for IdentityError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            KeyFileProblem::Io(source) => Some(source),
            KeyFileProblem::Mode(_) | KeyFileProblem::Malformed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own, gone with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("corecast-identity-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("key")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn write(path: &Path, text: &[u8]) {
        let _ = fs::remove_file(path);
        create_private(path).unwrap().write_all(text).unwrap();
    }

    fn problem(path: &Path) -> KeyFileProblem {
        Identity::load(path).unwrap_err().problem
    }

    #[test]
    fn the_node_id_is_the_public_key() {
        // RFC 7748, section 6.1: Alice.
        let secret = crate::id::parse_hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a").unwrap();
        let public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
        assert_eq!(Identity::from_secret(secret).node_id().to_string(), public);
    }

    #[test]
    fn a_key_file_gives_back_the_key_and_is_not_written_over() {
        let folder = Folder::new("again");
        let made = Identity::load_or_generate(folder.file()).unwrap();
        let read = Identity::load_or_generate(folder.file()).unwrap();
        assert_eq!(made.node_id(), read.node_id());
        let other = Identity::generate().unwrap();
        let refused = other.save(folder.file()).unwrap_err();
        assert!(matches!(refused.problem, KeyFileProblem::Io(error) if error.kind() == ErrorKind::AlreadyExists));
        assert_eq!(Identity::load(folder.file()).unwrap().node_id(), made.node_id());
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    #[cfg(unix)]
    fn a_key_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new("mode");
        Identity::generate().unwrap().save(folder.file()).unwrap();
        assert_eq!(fs::metadata(folder.file()).unwrap().permissions().mode() & 0o777, 0o600);
        for mode in [0o644, 0o640, 0o620, 0o602, 0o700] {
            fs::set_permissions(folder.file(), fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(problem(&folder.file()), KeyFileProblem::Mode(found) if found == mode));
        }
        fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o400)).unwrap();
        Identity::load(folder.file()).unwrap();
    }

    #[test]
    fn a_file_that_is_no_key_is_refused() {
        let folder = Folder::new("malformed");
        let good = format!("{HEADING}{}\n", "ab".repeat(32));
        write(&folder.file(), good.as_bytes());
        Identity::load(folder.file()).unwrap();
        for bad in ["", &good[1..], &good[..good.len() - 1], &format!("{good}\n"), &good.replace("ab", "AB"), &"x".repeat(1 << 20)] {
            write(&folder.file(), bad.as_bytes());
            assert!(matches!(problem(&folder.file()), KeyFileProblem::Malformed));
        }
        write(&folder.file(), &[0xFF; FILE_LEN]);
        assert!(matches!(problem(&folder.file()), KeyFileProblem::Malformed));
        assert!(matches!(problem(&folder.0.join("none")), KeyFileProblem::Io(error) if error.kind() == ErrorKind::NotFound));
    }

    #[test]
    fn nothing_prints_a_secret() {
        let identity = Identity::from_secret([0x5A; 32]);
        assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.node_id()));
        assert_eq!(format!("{:?}", NetworkSecret::new([0x5A; 32])), "NetworkSecret(..)");
    }
}
