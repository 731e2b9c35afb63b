//! The `_redirects` file (web-redirects-file specification), as pure functions.

use std::fmt;

use crate::target::{decode_percent, encode_percent};

/// The largest file that is read, in bytes.
pub(crate) const MAX_FILE: usize = 64 * 1024;
/// Parts a path in a rule may have.
const MAX_PARTS: usize = 64;

/// One line: from, to, status.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    from: Vec<Part>,
    to: String,
    status: u16,
}

/// A part of the path a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Exactly(String),
    /// `:name`: any one part.
    Placeholder(String),
    /// `*`: all that follows.
    Splat,
}

/// What a matching rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// 200, 301, 302, 303, 307, 308, 404, 410 or 451.
    pub(crate) status: u16,
    /// A path or, for a redirect, perhaps a whole URL; percent-encoded.
    pub(crate) to: String,
}

/// Why a file is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RedirectsError {
    TooLarge,
    NotText,
    /// Line, from 1, and what is wrong with it.
    Line(usize, String),
}

impl fmt::Display for RedirectsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("could not parse _redirects: ")?;
        match self {
            Self::TooLarge => write!(f, "redirects file size cannot exceed {MAX_FILE} bytes"),
            Self::NotText => f.write_str("it is not UTF-8"),
            Self::Line(line, why) => write!(f, "line {line}: {why}"),
        }
    }
}

/// The rules of a file, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redirects(Vec<Rule>);

impl Redirects {
    pub(crate) fn parse(file: &[u8]) -> Result<Self, RedirectsError> {
        if file.len() > MAX_FILE {
            return Err(RedirectsError::TooLarge);
        }
        let text = std::str::from_utf8(file).map_err(|_| RedirectsError::NotText)?;
        let mut rules = Vec::new();
        for (index, line) in text.lines().enumerate() {
            // a comment at a line's end is one, too, as in the other implementations
            let line = line.split_once(" #").map_or(line, |(rule, _)| rule).trim();
            if !line.is_empty() && !line.starts_with('#') {
                rules.push(Rule::parse(line).map_err(|why| RedirectsError::Line(index + 1, why))?);
            }
        }
        Ok(Self(rules))
    }

    /// The first rule that fits a path, given as its decoded parts.
    pub(crate) fn find(&self, path: &[String]) -> Option<Answer> {
        self.0.iter().find_map(|rule| rule.apply(path))
    }
}

impl Rule {
    fn parse(line: &str) -> Result<Self, String> {
        let fields: Vec<&str> = line.split_whitespace().take(4).collect();
        let (from, to, status) = match fields.as_slice() {
            [from, to] => (*from, *to, 301),
            [from, to, status] => (*from, *to, parse_status(status)?),
            _ => return Err("write: from to [status]".into()),
        };
        let url = ["http://", "https://", "ipfs://", "ipns://"].iter().any(|scheme| to.starts_with(scheme));
        if !to.starts_with('/') && !url {
            return Err(format!("{to:?} is neither a path that starts with / nor a URL"));
        }
        if url && !(301..=308).contains(&status) {
            return Err(format!("status {status} needs a path, not a URL"));
        }
        if to.contains(|c: char| c.is_control()) {
            return Err("control characters".into());
        }
        Ok(Self { from: parse_from(from)?, to: to.into(), status })
    }

    fn apply(&self, path: &[String]) -> Option<Answer> {
        let mut values: Vec<(&str, String)> = Vec::new();
        let mut rest = path;
        for part in &self.from {
            if *part == Part::Splat {
                let splat: Vec<String> = rest.iter().map(|p| encode_percent(p)).collect();
                values.push(("splat", splat.join("/")));
                rest = &[];
                break;
            }
            let (first, left) = rest.split_first()?;
            match part {
                Part::Exactly(text) if text != first => return None,
                Part::Placeholder(name) => values.push((name, encode_percent(first))),
                _ => {}
            }
            rest = left;
        }
        rest.is_empty().then(|| Answer { status: self.status, to: fill_in(&self.to, &values) })
    }
}

fn parse_status(text: &str) -> Result<u16, String> {
    if text.ends_with('!') {
        return Err("forced redirects (or \"shadowing\") are not supported".into());
    }
    match text.parse() {
        Ok(status @ (200 | 301 | 302 | 303 | 307 | 308 | 404 | 410 | 451)) => Ok(status),
        _ => Err(format!("status code {text} is not supported")),
    }
}

fn parse_from(from: &str) -> Result<Vec<Part>, String> {
    let path = from.strip_prefix('/').ok_or_else(|| format!("{from:?} does not start with /"))?;
    let names: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if names.len() > MAX_PARTS {
        return Err("a path with too many parts".into());
    }
    let last = names.len().saturating_sub(1);
    let part = |(index, name): (usize, &&str)| match name.strip_prefix(':') {
        Some(placeholder) if !placeholder.is_empty() => Ok(Part::Placeholder(placeholder.into())),
        _ if *name == "*" && index == last => Ok(Part::Splat),
        _ if name.contains('*') => Err("an asterisk may only stand alone at the end of a path".into()),
        _ => decode_percent(name).map(Part::Exactly).ok_or_else(|| format!("{name:?} is wrongly encoded")),
    };
    names.iter().enumerate().map(part).collect()
}

/// Puts values in the place of `:name`. A name ends where its letters, digits and `_` do.
fn fill_in(to: &str, values: &[(&str, String)]) -> String {
    let mut out = String::with_capacity(to.len());
    let mut rest = to;
    while let Some(at) = rest.find(':') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let after = from.strip_prefix(':').unwrap_or(from);
        let end = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
        let (name, left) = after.split_at(end);
        match values.iter().find(|(n, _)| *n == name) {
            Some((_, value)) => out.push_str(value),
            None => {
                out.push(':');
                out.push_str(name);
            }
        }
        rest = left;
    }
    out.push_str(rest);
    ascii(&out)
}

/// Encodes what can't stand in a header.
fn ascii(text: &str) -> String {
    let encode = |c: char| if c.is_ascii_graphic() { c.to_string() } else { encode_percent(&c.to_string()) };
    text.chars().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = "# comment\r\n\
        /redirect-one /one.html\n/301-redirect-one /one.html 301\n/302-redirect-two /two.html 302\n\
        /200-index /index.html 200\n/posts/:year/:month/:day/:title /articles/:year/:month/:day/:title 301\r\n\
        /splat/* /redirected-splat/:splat 301\n/not-found/* /404.html 404\n/gone/* /410.html 410\n\
        /unavail/* /451.html 451\n/away/:what https://example.org/:what 307\n/\u{105} /b\u{105}\n/* /index.html 200\n";

    fn find(rules: &Redirects, path: &str) -> (u16, String) {
        let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(String::from).collect();
        rules.find(&parts).map(|a| (a.status, a.to)).unwrap_or_default()
    }

    #[test]
    fn the_example_of_the_specification() {
        let rules = Redirects::parse(EXAMPLE.as_bytes()).unwrap();
        for (path, status, to) in [
            ("/redirect-one", 301, "/one.html"),
            ("/302-redirect-two/", 302, "/two.html"),
            ("/200-index", 200, "/index.html"),
            ("/posts/2022/01/01/hello-world", 301, "/articles/2022/01/01/hello-world"),
            ("/posts/2022/01/01", 200, "/index.html"),
            ("/splat/one.html", 301, "/redirected-splat/one.html"),
            ("/splat/a b/c", 301, "/redirected-splat/a%20b/c"),
            ("/splat", 301, "/redirected-splat/"),
            ("/not-found/x/y", 404, "/404.html"),
            ("/gone/x", 410, "/410.html"),
            ("/unavail/x", 451, "/451.html"),
            ("/away/\r\nSet-Cookie: x", 307, "https://example.org/%0D%0ASet-Cookie%3A%20x"),
            ("/ą", 301, "/b%C4%85"),
            ("/anything", 200, "/index.html"),
        ] {
            assert_eq!(find(&rules, path), (status, to.into()), "{path}");
        }
    }

    #[test]
    fn wrong_files_say_what_and_where() {
        let why = |text: &str| Redirects::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(why("/a /b 301!").contains("forced redirects (or \"shadowing\") are not supported"));
        assert!(why("/a /b 201").contains("status code 201 is not supported"));
        assert!(why("\n/a").contains("line 2"));
        assert!(why("/a /b 301 x").contains("from to"));
        assert!(why("a /b").contains("start with /"));
        assert!(why("/a b").contains("neither"));
        assert!(why("/a javascript:alert(1)").contains("neither"));
        assert!(why("/a https://x 200").contains("needs a path"));
        assert!(why("/a/*/b /c").contains("asterisk"));
        assert!(why("/a*b /c").contains("asterisk"));
        let large = Redirects::parse(&vec![b'#'; MAX_FILE + 1]).unwrap_err().to_string();
        assert!(
            large.starts_with("could not parse _redirects: redirects file size cannot exceed"),
            "{large}"
        );
        assert_eq!(Redirects::parse(b"\xff"), Err(RedirectsError::NotText));
        assert_eq!(Redirects::parse(&vec![b'\n'; MAX_FILE]).unwrap().find(&[]), None);
    }

    proptest! {
        #[test]
        fn any_file_and_path_are_answered(file in "([/:*a-c! 301#\n]{0,60}|.{0,60})", path in proptest::collection::vec(".{0,6}", 0..4)) {
            if let Ok(rules) = Redirects::parse(file.as_bytes())
                && let Some(answer) = rules.find(&path)
            {
                prop_assert!(answer.to.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
