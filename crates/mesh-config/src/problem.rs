//! One mistake in the file, told so that a person can mend it.

use std::fmt;

/// A mistake in `p2pmesh.toml`. What it stands on was ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 if the file as a whole is meant.
    pub line: u32,
    /// Column in characters, from 1; 0 if the file as a whole is meant.
    pub column: u32,
    /// The key as written in full (`ap.password`); empty where no key can be named.
    pub key: String,
    /// What is wrong.
    pub meaning: String,
    /// What to write instead.
    pub advice: String,
}

impl Problem {
    /// A problem of the file as a whole.
    pub fn whole_file(meaning: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { line: 0, column: 0, key: String::new(), meaning: meaning.into(), advice: advice.into() }
    }
}

impl fmt::Display for Problem {
    /// `line 3, column 4: ap.pasword: there is no such key; did you mean ap.password?`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.meaning)?;
        if !self.advice.is_empty() {
            write!(f, "; {}", self.advice)?;
        }
        Ok(())
    }
}
