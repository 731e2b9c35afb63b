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
    /// Encoding, `..` above the root, or NUL.
    BadPath(&'static str),
    /// Over [`MAX_PATH`].
    TooLong,
}

impl std::fmt::Display for TargetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoContent => f.write_str("no content path: write /ipfs/<cid>[/path]"),
            Self::BadCid(why) => write!(f, "invalid path: {why}"),
            Self::BadPath(why) => write!(f, "invalid path: {why}"),
            Self::TooLong => write!(f, "invalid path: it is longer than {MAX_PATH} bytes"),
        }
    }
}

impl Target {
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
            return Err(TargetError::TooLong);
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

/// Which kind of root a content path has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// A CID.
    Ipfs,
    /// A name that leads to a CID.
    Ipns,
}

impl Namespace {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ipfs => "ipfs",
            Self::Ipns => "ipns",
        }
    }
}

/// `/ipfs/<cid>[/path]` or `/ipns/<name>[/path]`, decoded and taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContentPath {
    pub(crate) namespace: Namespace,
    /// CID or name, as it was written.
    pub(crate) root: String,
    pub(crate) segments: Vec<String>,
    pub(crate) trailing_slash: bool,
}

impl ContentPath {
    /// From a URL's path, percent-encoded. It is decoded once, then split: `%2F` is a separator.
    pub(crate) fn from_url(path: &str) -> Result<Self, TargetError> {
        let decoded = decode_path(path)?;
        let (namespace, rest) = match (decoded.strip_prefix("/ipfs/"), decoded.strip_prefix("/ipns/")) {
            (Some(rest), _) => (Namespace::Ipfs, rest),
            (_, Some(rest)) => (Namespace::Ipns, rest),
            _ => return Err(TargetError::NoContent),
        };
        let (root, below) = rest.split_once('/').map_or((rest, None), |(root, below)| (root, Some(below)));
        if root.is_empty() {
            return Err(TargetError::NoContent);
        }
        Self::below(namespace, root.to_owned(), below)
    }

    /// From a URL's path under a root that is known from elsewhere.
    pub(crate) fn under(namespace: Namespace, root: String, path: &str) -> Result<Self, TargetError> {
        let decoded = decode_path(path)?;
        Self::below(namespace, root, Some(decoded.strip_prefix('/').unwrap_or(&decoded)))
    }

    fn below(namespace: Namespace, root: String, below: Option<&str>) -> Result<Self, TargetError> {
        let mut segments = Vec::new();
        for part in below.unwrap_or("").split('/') {
            match part {
                "" | "." => {}
                ".." => drop(segments.pop().ok_or(TargetError::BadPath("'..' leads above the root"))?),
                _ => segments.push(part.to_owned()),
            }
        }
        let trailing_slash = below.is_some_and(|b| b.is_empty() || b.ends_with('/'));
        Ok(Self { namespace, root, segments, trailing_slash })
    }

    /// The last name, empty for the root.
    pub(crate) fn name(&self) -> &str {
        self.segments.last().map_or("", String::as_str)
    }

    /// The path as text, not encoded.
    pub(crate) fn text(&self) -> String {
        let mut out = format!("/{}/{}", self.namespace.name(), self.root);
        for segment in &self.segments {
            out.push('/');
            out.push_str(segment);
        }
        if self.trailing_slash {
            out.push('/');
        }
        out
    }
}

fn decode_path(path: &str) -> Result<String, TargetError> {
    if path.len() > MAX_PATH {
        return Err(TargetError::TooLong);
    }
    let decoded = decode_percent(path).ok_or(TargetError::BadPath("its encoding is broken"))?;
    if decoded.contains('\0') {
        return Err(TargetError::BadPath("it has a NUL in it"));
    }
    Ok(decoded)
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
    /// No range, or one that is not understood: all of it.
    All,
    /// Bytes `start .. end`.
    Part(u64, u64),
    /// Only ranges outside the file.
    Unsatisfiable,
}

/// Ranges that are looked at in one header.
const MAX_RANGES: usize = 32;

/// Reads `bytes=a-b`, `bytes=a-` or `bytes=-n` against a file of `size` bytes. Of several ranges the
/// first that lies in the file is served, alone (RFC 9110 §15.3.7.1 allows less than was asked for).
pub(crate) fn parse_range(header: &str, size: u64) -> Wanted {
    let Some(list) = header.trim().strip_prefix("bytes=") else { return Wanted::All };
    let ranges: Option<Vec<Wanted>> =
        list.split(',').take(MAX_RANGES + 1).map(|spec| parse_one_range(spec.trim(), size)).collect();
    match ranges {
        Some(ranges) if ranges.len() <= MAX_RANGES => {
            let first = ranges.into_iter().find(|range| *range != Wanted::Unsatisfiable);
            first.unwrap_or(Wanted::Unsatisfiable)
        }
        _ => Wanted::All,
    }
}

/// `None`: not a range.
fn parse_one_range(spec: &str, size: u64) -> Option<Wanted> {
    let (first, last) = spec.split_once('-')?;
    // a number beyond 64 bits lies outside every file
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    Some(match (first.is_empty(), last.is_empty()) {
        (true, true) => return None,
        (true, false) => match number(last)? {
            0 => Wanted::Unsatisfiable,
            _ if size == 0 => Wanted::Unsatisfiable,
            n => Wanted::Part(size.saturating_sub(n), size),
        },
        (false, true) => match number(first)? {
            start if start < size => Wanted::Part(start, size),
            _ => Wanted::Unsatisfiable,
        },
        (false, false) => match (number(first)?, number(last)?) {
            (start, end) if start > end => return None,
            (start, _) if start >= size => Wanted::Unsatisfiable,
            (start, end) => Wanted::Part(start, end.saturating_add(1).min(size)),
        },
    })
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
        let target = ContentPath::from_url(&format!("/ipfs/{CID}/a%20b//./c/../d/")).unwrap();
        assert_eq!(target.segments, ["a b", "d"]);
        assert!(target.trailing_slash);
        assert_eq!((target.namespace, target.name()), (Namespace::Ipfs, "d"));
        assert_eq!(target.text(), format!("/ipfs/{CID}/a b/d/"));
        let plain = ContentPath::from_url("/ipns/name").unwrap();
        assert_eq!(
            (plain.namespace, plain.trailing_slash, plain.text().as_str()),
            (Namespace::Ipns, false, "/ipns/name")
        );
        // decoded once, then split
        let tricky = ContentPath::from_url(&format!("/ipfs/{CID}/a%2F..%2Fplain%2Etxt")).unwrap();
        assert_eq!(tricky.segments, ["plain.txt"]);
        let twice = ContentPath::from_url(&format!("/ipfs/{CID}/x%252F")).unwrap();
        assert_eq!(twice.segments, ["x%2F"]);
        assert_eq!(
            ContentPath::under(Namespace::Ipfs, CID.into(), "/ipfs/%C4%85/").unwrap().segments,
            ["ipfs", "ą"]
        );
        assert_eq!(Target::from_text(CID).unwrap().segments.len(), 0);
        assert_eq!(Target::from_text(&format!("/ipfs/{CID}/x%20y")).unwrap().segments, ["x%20y"]);
    }

    #[test]
    fn wrong_paths_are_named() {
        let url = |p: &str| ContentPath::from_url(p).unwrap_err();
        assert_eq!(url("/"), TargetError::NoContent);
        assert_eq!(url("/ipfs/"), TargetError::NoContent);
        assert!(matches!(Target::from_text("/ipfs/hello").unwrap_err(), TargetError::BadCid(_)));
        for path in ["..", "a/../..", "%", "%4", "%zz", "%ff", "%00"] {
            assert!(matches!(url(&format!("/ipfs/{CID}/{path}")), TargetError::BadPath(_)), "{path}");
        }
        let long = "a/".repeat(MAX_PATH);
        assert_eq!(url(&format!("/ipfs/{CID}/{long}")), TargetError::TooLong);
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
            ("bytes=6-7,0-4", Wanted::Part(6, 8)),
            ("bytes=10-,-1", Wanted::Part(9, 10)),
            ("bytes=10-,11-12", Wanted::Unsatisfiable),
            ("bytes=0-1,x", Wanted::All),
            ("bytes=", Wanted::All),
            ("bytes=-", Wanted::All),
            ("bytes=4-2", Wanted::All),
            ("bytes=+1-2", Wanted::All),
            ("items=0-1", Wanted::All),
            ("bytes=99999999999999999999-", Wanted::Unsatisfiable),
        ] {
            assert_eq!(parse_range(header, 10), wanted, "{header}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Wanted::Unsatisfiable);
        assert_eq!(parse_range(&format!("bytes=0-1{}", ",2-3".repeat(MAX_RANGES)), 10), Wanted::All);
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
