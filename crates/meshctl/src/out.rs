//! Standard output and error that don't panic when nobody listens.

use std::io::{self, BufWriter, Write};

use crate::failure::Failure;

/// Where a command's output goes.
pub(crate) struct Out {
    to: BufWriter<Box<dyn Write>>,
}

impl Out {
    pub(crate) fn stdout() -> Self {
        Self::to(Box::new(io::stdout()))
    }

    pub(crate) fn to(writer: Box<dyn Write>) -> Self {
        Self { to: BufWriter::with_capacity(64 * 1024, writer) }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.to.write_all(bytes).map_err(|e| Failure::write("the output", &e))
    }

    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.text(text)?;
        self.text("\n")
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.to.flush().map_err(|e| Failure::write("the output", &e))
    }
}

/// One line on standard error.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
