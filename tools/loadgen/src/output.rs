//! What is written where: standard output and files, whose errors end a run, and remarks on standard error, whose errors do not.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Error;

/// The line begins with the program's name. A standard error that is full or gone is no reason to stop.
pub(crate) fn remark(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "corecast-loadgen: {text}");
}

/// Writes to standard output, and all of it.
pub(crate) fn print(text: impl fmt::Display) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    write!(out, "{text}").and_then(|()| out.flush()).map_err(|source| Error::Stdout { source })
}

/// Where JSON, or another form of a report, goes. Opened before there is any, so that a run is not made in vain.
pub(crate) enum JsonSink {
    Stdout,
    File(PathBuf, File),
}

impl JsonSink {
    /// `-` is standard output. A file is empty from here on: until the JSON is written it is not an older run's.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        let file = File::create(path).map_err(|source| Error::Write { path: path.to_owned(), source })?;
        Ok(Self::File(path.to_owned(), file))
    }

    /// Where the command line names one.
    pub(crate) fn open_some(path: Option<&PathBuf>) -> Result<Option<Self>, Error> {
        path.map(|path| Self::open(path)).transpose()
    }

    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self, Self::Stdout)
    }

    pub(crate) fn write_text(self, text: &str) -> Result<(), Error> {
        match self {
            Self::Stdout => print(text),
            Self::File(path, mut file) => file.write_all(text.as_bytes()).map_err(|source| Error::Write { path, source }),
        }
    }

    pub(crate) fn write(self, value: &impl Serialize) -> Result<(), Error> {
        match self {
            Self::Stdout => write_pretty(BufWriter::new(io::stdout().lock()), value).map_err(|source| Error::Stdout { source }),
            Self::File(path, file) => write_pretty(BufWriter::new(file), value).map_err(|source| Error::Write { path, source }),
        }
    }
}

fn write_pretty(mut out: impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    out.flush()
}
