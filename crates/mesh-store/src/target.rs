//! What a request names: paths, queries, ranges and conditions, as pure functions.

use content_id::Cid;

/// The longest path, in bytes.
pub(crate) const MAX_PATH: usize = 8 * 1024;

/// `/ipfs/<cid>[/path]`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) root: Cid,
    pub(crate) segments: Vec<String>,
    pub(crate) trailing_slash: bool,
}

/// Why a path names nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TargetError {
    /// It does not begin with `/ipfs/` (or a CID, where that is allowed).
    NoContent,
    /// The CID is wrong: why.
    BadCid(String),
    /// Encoding, `..` above the root, NUL, or too long.
    BadPath(&'static str),
}

impl std::fmt::Display for TargetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoContent => f.write_str("no content path: write /ipfs/<cid>[/path]"),
            Self::BadCid(why) => write!(f, "invalid path: {why}"),
            Self::BadPath(why) => write!(f, "invalid path: {why}"),
        }
    }
}

impl Target {
    /// From a URL's path, percent-encoded.
    pub(crate) fn from_url(path: &str) -> Result<Self, TargetError> {
        let rest = path.strip_prefix("/ipfs/").ok_or(TargetError::NoContent)?;
        Self::from_parts(rest.split('/').map(decode_percent), path.len())
    }

    /// From what a person writes: `CID[/path]`, `/ipfs/CID[/path]` or `ipfs://CID[/path]`.
    pub(crate) fn from_text(path: &str) -> Result<Self, TargetError> {
        let rest = path.strip_prefix("/ipfs/").or_else(|| path.strip_prefix("ipfs://")).unwrap_or(path);
        Self::from_parts(rest.split('/').map(|part| Some(part.to_owned())), path.len())
    }

    fn from_parts(
        mut parts: impl Iterator<Item = Option<String>>,
        length: usize,
    ) -> Result<Self, TargetError> {
        if length > MAX_PATH {
            return Err(TargetError::BadPath("it is too long"));
        }
        let bad = TargetError::BadPath("its encoding is broken");
        let cid = parts.next().ok_or(TargetError::NoContent)?.ok_or(bad.clone())?;
        if cid.is_empty() {
            return Err(TargetError::NoContent);
        }
        let root =
            cid.parse().map_err(|e: content_id::CidError| TargetError::BadCid(format!("{cid:?}: {e}")))?;
        let mut segments = Vec::new();
        let mut trailing_slash = false;
        for part in parts {
            let part = part.ok_or(bad.clone())?;
            trailing_slash = part.is_empty();
            match part.as_str() {
                "" | "." => {}
                ".." => {
                    segments.pop().ok_or(TargetError::BadPath("'..' leads above the root"))?;
                }
                name if name.contains('\0') => return Err(TargetError::BadPath("it has a NUL in it")),
                _ => segments.push(part),
            }
        }
        Ok(Self { root, segments, trailing_slash })
    }

    /// The last name, empty for the root.
    pub(crate) fn name(&self) -> &str {
        self.segments.last().map_or("", String::as_str)
    }
}

/// Decodes `%41`; `None` if it is broken or not UTF-8.
pub(crate) fn decode_percent(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_first_chunk::<2>()?;
        let digit = |c: u8| char::from(c).to_digit(16);
        let [high, low] = *digits;
        bytes.push((digit(high)? * 16 + digit(low)?) as u8);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

/// Encodes a name for a URL's path.
pub(crate) fn encode_percent(name: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The value of a key in a query, decoded.
pub(crate) fn query_value(query: Option<&str>, key: &str) -> Option<String> {
    query?.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name == key { decode_percent(&value.replace('+', " ")) } else { None }
    })
}

/// What a Range header asks of a file (RFC 9110 §14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// No range, several, or one that is not understood: all of it.
    All,
    /// Bytes `start .. end`.
    Part(u64, u64),
    /// A range outside the file.
    Unsatisfiable,
}

/// Reads `bytes=a-b`, `bytes=a-` or `bytes=-n` against a file of `size` bytes.
pub(crate) fn parse_range(header: &str, size: u64) -> Wanted {
    let Some((first, last)) = header.trim().strip_prefix("bytes=").and_then(|spec| spec.split_once('-'))
    else {
        return Wanted::All;
    };
    let number = |text: &str| {
        let text = text.trim();
        if text.bytes().all(|b| b.is_ascii_digit()) { text.parse::<u64>().ok() } else { None }
    };
    match (first.trim().is_empty(), last.trim().is_empty()) {
        (true, false) => match number(last) {
            Some(0) => Wanted::Unsatisfiable,
            Some(_) if size == 0 => Wanted::Unsatisfiable,
            Some(n) => Wanted::Part(size.saturating_sub(n), size),
            None => Wanted::All,
        },
        (false, true) => match number(first) {
            Some(start) if start < size => Wanted::Part(start, size),
            Some(_) => Wanted::Unsatisfiable,
            None => Wanted::All,
        },
        (false, false) => match (number(first), number(last)) {
            (Some(start), Some(end)) if start > end => Wanted::All,
            (Some(start), Some(_)) if start >= size => Wanted::Unsatisfiable,
            (Some(start), Some(end)) => Wanted::Part(start, end.saturating_add(1).min(size)),
            _ => Wanted::All,
        },
        (true, true) => Wanted::All,
    }
}

/// Whether an If-None-Match header names `etag` (weak comparison, RFC 9110 §13.1.2).
pub(crate) fn none_match(header: &str, etag: &str) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    header.trim() == "*" || header.split(',').any(|tag| bare(tag) == bare(etag))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "QmWATWQ7fVPP2EFGu71UkfnqhYXDYH566qy47CnJDgvs8u";

    #[test]
    fn paths_are_taken_apart() {
        let target = Target::from_url(&format!("/ipfs/{CID}/a%20b//./c/../d/")).unwrap();
        assert_eq!(target.segments, ["a b", "d"]);
        assert!(target.trailing_slash);
        assert_eq!(target.name(), "d");
        assert_eq!(Target::from_text(CID).unwrap().segments.len(), 0);
        assert_eq!(Target::from_text(&format!("/ipfs/{CID}/x%20y")).unwrap().segments, ["x%20y"]);
    }

    #[test]
    fn wrong_paths_are_named() {
        let url = |p: &str| Target::from_url(p).unwrap_err();
        assert_eq!(url("/"), TargetError::NoContent);
        assert_eq!(url("/ipfs/"), TargetError::NoContent);
        assert!(matches!(url("/ipfs/hello"), TargetError::BadCid(_)));
        for path in ["..", "a/../..", "%", "%4", "%zz", "%ff", "%00"] {
            assert!(matches!(url(&format!("/ipfs/{CID}/{path}")), TargetError::BadPath(_)), "{path}");
        }
        let long = "a/".repeat(MAX_PATH);
        assert!(matches!(url(&format!("/ipfs/{CID}/{long}")), TargetError::BadPath(_)));
    }

    #[test]
    fn rfc9110_14_2_ranges() {
        for (header, wanted) in [
            ("bytes=0-0", Wanted::Part(0, 1)),
            ("bytes=2-", Wanted::Part(2, 10)),
            ("bytes=-3", Wanted::Part(7, 10)),
            ("bytes=-30", Wanted::Part(0, 10)),
            ("bytes=5-99", Wanted::Part(5, 10)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=0-1,3-4", Wanted::All),
            ("bytes=4-2", Wanted::All),
            ("bytes=+1-2", Wanted::All),
            ("items=0-1", Wanted::All),
            ("bytes=99999999999999999999-", Wanted::All),
        ] {
            assert_eq!(parse_range(header, 10), wanted, "{header}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn rfc9110_13_1_2_conditions() {
        assert!(none_match("*", "\"a\""));
        assert!(none_match("\"x\", W/\"a\"", "\"a\""));
        assert!(!none_match("\"x\"", "\"a\""));
    }

    #[test]
    fn queries_are_decoded() {
        assert_eq!(query_value(Some("a=1&filename=x%20y+z"), "filename").unwrap(), "x y z");
        assert_eq!(query_value(Some("a"), "a").unwrap(), "");
        assert_eq!(query_value(Some("a=1"), "b"), None);
        assert_eq!(encode_percent("a b/ü"), "a%20b%2F%C3%BC");
    }
}
