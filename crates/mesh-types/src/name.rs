//! Node names: one DNS label, letters, digits and hyphens.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

use serde::{Deserialize, Serialize};

/// A node's name: one DNS label of 1 to 63 letters, digits and inner hyphens, kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// Why a text is not a node name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeNameError {
    /// No character at all.
    Empty,
    /// More than 63 bytes.
    TooLong(usize),
    /// A character other than a letter, a digit or a hyphen.
    BadCharacter(char),
    /// A hyphen at the start or the end.
    EdgeHyphen,
}

impl fmt::Display for NodeNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a name needs at least one character"),
            Self::TooLong(n) => write!(f, "a name has at most 63 characters, this one has {n}"),
            Self::BadCharacter(c) => {
                write!(f, "a name is made of letters, digits and hyphens; {c:?} is none of them")
            }
            Self::EdgeHyphen => f.write_str("a name neither starts nor ends with a hyphen"),
        }
    }
}

impl core::error::Error for NodeNameError {}

impl NodeName {
    /// Checks `text` (RFC 1123 §2.1, one label) and folds it to lower case.
    pub fn new(text: &str) -> Result<Self, NodeNameError> {
        if text.is_empty() {
            return Err(NodeNameError::Empty);
        }
        if let Some(c) = text.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
            return Err(NodeNameError::BadCharacter(c));
        }
        if text.len() > 63 {
            return Err(NodeNameError::TooLong(text.len()));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(NodeNameError::EdgeHyphen);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The name as text, in lower case, without `.local`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The next name to try after a conflict: `bloor`, `bloor-2`, `bloor-3`, … (RFC 6762 §9).
    /// `counter` is 2 or more; the base is cut so that the result still fits one label.
    #[must_use]
    pub fn with_suffix(&self, counter: u32) -> Self {
        let suffix = format!("-{counter}");
        let keep = self.0.len().min(63 - suffix.len());
        let base = self.0.get(..keep).unwrap_or(&self.0).trim_end_matches('-');
        Self(format!("{base}{suffix}"))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for NodeName {
    type Error = NodeNameError;
    fn try_from(text: String) -> Result<Self, NodeNameError> {
        Self::new(&text)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_labels_and_folds_case() {
        assert_eq!(NodeName::new("Bloor-2").unwrap().as_str(), "bloor-2");
        assert_eq!(NodeName::new(&"a".repeat(63)).unwrap().as_str().len(), 63);
    }

    #[test]
    fn names_each_mistake() {
        assert_eq!(NodeName::new(""), Err(NodeNameError::Empty));
        assert_eq!(NodeName::new(&"a".repeat(64)), Err(NodeNameError::TooLong(64)));
        assert_eq!(NodeName::new("a.b"), Err(NodeNameError::BadCharacter('.')));
        assert_eq!(NodeName::new("é"), Err(NodeNameError::BadCharacter('é')));
        assert_eq!(NodeName::new("-a"), Err(NodeNameError::EdgeHyphen));
    }

    #[test]
    fn suffix_fits_the_label() {
        assert_eq!(NodeName::new("bloor").unwrap().with_suffix(2).as_str(), "bloor-2");
        let long = NodeName::new(&"a".repeat(63)).unwrap().with_suffix(10);
        assert_eq!(long.as_str().len(), 63);
        assert!(long.as_str().ends_with("-10"));
    }
}
