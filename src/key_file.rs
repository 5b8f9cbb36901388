//! Files that keep a secret of 32 bytes: one line, which says what it is and has 64 hexadecimal digits.
//!
//! They are written whole or not at all, and read only where nobody but their owner, who is this process's user, can have read or written
//! them. What the secret is for is not known here.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// 32 bytes that are wiped when they are dropped.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// Why a key file, or a file with a network's secret, could not be read or written.
#[derive(Debug)]
pub struct KeyFileError {
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
    /// It is this user's, not ours: whoever put it there knows what is in it.
    Owner(u32),
    /// It is no key file, or one of another kind.
    Malformed,
}

impl fmt::Display for KeyFileError {
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
            KeyFileProblem::Owner(uid) => {
                write!(
                    f,
                    "key file {path} belongs to user {uid}, who knows what is in it: make a new key, or chown it if that is as it should be"
                )
            }
            KeyFileProblem::Malformed => {
                write!(
                    f,
                    "{path} is no such key file: expected one line, what it is (as in corecast-identity-1), a space, 64 hexadecimal digits"
                )
            }
        }
    }
}

impl std::error::Error for KeyFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            KeyFileProblem::Io(source) => Some(source),
            _ => None,
        }
    }
}

/// What a file of this kind begins with, and all that can be done with one.
pub(crate) struct KeyFile {
    pub(crate) heading: &'static str,
}

impl KeyFile {
    fn len(&self) -> usize {
        self.heading.len() + 64 + 1
    }

    pub(crate) fn load(&self, path: &Path) -> Result<Secret, KeyFileError> {
        self.read(path).map_err(|problem| KeyFileError { path: path.to_owned(), problem })
    }

    fn read(&self, path: &Path) -> Result<Secret, KeyFileProblem> {
        let file = File::open(path).map_err(KeyFileProblem::Io)?;
        check(&file)?;
        let mut text = Zeroizing::new(String::with_capacity(self.len() + 1));
        // Made to measure: a longer file is none of ours, and growing would leave copies behind.
        match file.take(self.len() as u64 + 1).read_to_string(&mut text) {
            Ok(_) => self.parse(&text).ok_or(KeyFileProblem::Malformed),
            Err(error) if error.kind() == ErrorKind::InvalidData => Err(KeyFileProblem::Malformed),
            Err(error) => Err(KeyFileProblem::Io(error)),
        }
    }

    fn parse(&self, text: &str) -> Option<Secret> {
        let digits = text.strip_prefix(self.heading)?.strip_suffix('\n')?;
        crate::id::parse_hex(digits).ok().map(Zeroizing::new)
    }

    /// Reads it, or writes what `make` makes, if there is no such file. Where two processes do this at once, both get the one that was
    /// written.
    pub(crate) fn load_or(&self, path: &Path, make: impl FnOnce() -> io::Result<Secret>) -> Result<Secret, KeyFileError> {
        match self.load(path) {
            Err(KeyFileError { problem: KeyFileProblem::Io(error), .. }) if error.kind() == ErrorKind::NotFound => {}
            other => return other,
        }
        let fail = |source| KeyFileError { path: path.to_owned(), problem: KeyFileProblem::Io(source) };
        let secret = make().map_err(fail)?;
        match self.save(path, &secret) {
            Ok(()) => Ok(secret),
            Err(KeyFileError { problem: KeyFileProblem::Io(error), .. }) if error.kind() == ErrorKind::AlreadyExists => self.load(path),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn save(&self, path: &Path, secret: &[u8; 32]) -> Result<(), KeyFileError> {
        self.write(path, secret).map_err(|source| KeyFileError { path: path.to_owned(), problem: KeyFileProblem::Io(source) })
    }

    fn write(&self, path: &Path, secret: &[u8; 32]) -> io::Result<()> {
        let mut text = Zeroizing::new(String::with_capacity(self.len()));
        text.push_str(self.heading);
        for byte in secret {
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
        sync_folder(path);
        written
    }
}

/// After a loss of power the name should be there as well as the key. Not every file system can be asked for that.
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn check(file: &File) -> Result<(), KeyFileProblem> {
    use std::os::unix::fs::MetadataExt;
    let found = file.metadata().map_err(KeyFileProblem::Io)?;
    let mode = found.mode() & 0o777;
    if !found.is_file() {
        Err(KeyFileProblem::Malformed)
    } else if mode & 0o177 != 0 {
        Err(KeyFileProblem::Mode(mode))
    } else if found.uid() != rustix::process::geteuid().as_raw() {
        Err(KeyFileProblem::Owner(found.uid()))
    } else {
        Ok(())
    }
}

#[cfg(not(unix))]
fn check(_: &File) -> Result<(), KeyFileProblem> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: KeyFile = KeyFile { heading: "corecast-test-1 " };

    /// A folder of its own, gone with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("corecast-key-{name}-{}", std::process::id()));
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
        KIND.load(path).unwrap_err().problem
    }

    #[test]
    fn a_key_file_gives_back_the_key_and_is_not_written_over() {
        let folder = Folder::new("again");
        let made = KIND.load_or(&folder.file(), || Ok(Zeroizing::new([7; 32]))).unwrap();
        assert_eq!(*KIND.load_or(&folder.file(), || panic!("there is one")).unwrap(), *made);
        let refused = KIND.save(&folder.file(), &[8; 32]).unwrap_err();
        assert!(matches!(refused.problem, KeyFileProblem::Io(error) if error.kind() == ErrorKind::AlreadyExists));
        assert_eq!(*KIND.load(&folder.file()).unwrap(), [7; 32]);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    #[cfg(unix)]
    fn a_key_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new("mode");
        KIND.save(&folder.file(), &[7; 32]).unwrap();
        assert_eq!(fs::metadata(folder.file()).unwrap().permissions().mode() & 0o777, 0o600);
        for mode in [0o644, 0o640, 0o620, 0o602, 0o700] {
            fs::set_permissions(folder.file(), fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(problem(&folder.file()), KeyFileProblem::Mode(found) if found == mode));
        }
        fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o400)).unwrap();
        KIND.load(&folder.file()).unwrap();
    }

    /// Only root can give a file away, and only he can read what is another's in spite of its mode.
    #[test]
    #[cfg(unix)]
    fn a_key_that_somebody_else_has_put_there_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = Folder::new("owner");
        KIND.save(&folder.file(), &[7; 32]).unwrap();
        std::os::unix::fs::chown(folder.file(), Some(12_345), None).unwrap();
        assert!(matches!(problem(&folder.file()), KeyFileProblem::Owner(12_345)));
    }

    #[test]
    fn a_file_that_is_no_key_is_refused() {
        let folder = Folder::new("malformed");
        let good = format!("{}{}\n", KIND.heading, "ab".repeat(32));
        write(&folder.file(), good.as_bytes());
        KIND.load(&folder.file()).unwrap();
        let other = good.replace("test", "best");
        for bad in ["", &good[1..], &good[..good.len() - 1], &format!("{good}\n"), &good.replace("ab", "AB"), &"x".repeat(1 << 20), &other]
        {
            write(&folder.file(), bad.as_bytes());
            assert!(matches!(problem(&folder.file()), KeyFileProblem::Malformed));
        }
        write(&folder.file(), &[0xFF; 80]);
        assert!(matches!(problem(&folder.file()), KeyFileProblem::Malformed));
        assert!(matches!(problem(&folder.0), KeyFileProblem::Malformed), "a folder");
        assert!(matches!(problem(&folder.0.join("none")), KeyFileProblem::Io(error) if error.kind() == ErrorKind::NotFound));
    }
}
