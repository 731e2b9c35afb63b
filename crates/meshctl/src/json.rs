//! JSON output (RFC 8259), written by hand: no output of ours needs more.

use std::fmt::{self, Write};

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(u64),
    Negative(i64),
    Text(String),
    List(Vec<Json>),
    /// Members in the order in which they are shown.
    Object(Vec<(&'static str, Json)>),
}

impl Json {
    /// On one line, without blanks.
    pub(crate) fn compact(&self) -> String {
        let joined = |items: Vec<String>| items.join(",");
        match self {
            Self::List(items) => format!("[{}]", joined(items.iter().map(Self::compact).collect())),
            Self::Object(members) => {
                let member = |(name, value): &(&str, Self)| {
                    format!("{}:{}", Self::from(*name).compact(), value.compact())
                };
                format!("{{{}}}", joined(members.iter().map(member).collect()))
            }
            plain => plain.to_string(),
        }
    }

    pub(crate) fn list<T>(items: &[T], f: impl Fn(&T) -> Self) -> Self {
        Self::List(items.iter().map(f).collect())
    }
}

macro_rules! from {
    ($($t:ty => $f:expr),* $(,)?) => {
        $(impl From<$t> for Json { fn from(v: $t) -> Self { ($f)(v) } })*
    };
}
from! {
    bool => Json::Bool,
    u64 => Json::Number,
    u32 => |v| Json::Number(u64::from(v)),
    u8 => |v| Json::Number(u64::from(v)),
    i8 => |v| Json::Negative(i64::from(v)),
    usize => |v| Json::Number(v as u64),
    &str => |v: &str| Json::Text(v.to_owned()),
    String => Json::Text,
    &String => |v: &String| Json::Text(v.clone()),
    std::net::IpAddr => |v: std::net::IpAddr| Json::Text(v.to_string()),
    mesh_types::NodeId => |v: mesh_types::NodeId| Json::Text(v.to_string()),
}

impl<T: Into<Self>> From<Option<T>> for Json {
    fn from(v: Option<T>) -> Self {
        v.map_or(Self::Null, Into::into)
    }
}

impl<T: Into<Self> + Clone> From<&[T]> for Json {
    fn from(v: &[T]) -> Self {
        Self::List(v.iter().cloned().map(Into::into).collect())
    }
}

/// `object![ "key" => value, … ]`
macro_rules! object {
    ($($key:literal => $value:expr),* $(,)?) => {
        $crate::json::Json::Object(vec![$(($key, $crate::json::Json::from($value))),*])
    };
}
pub(crate) use object;

impl fmt::Display for Json {
    /// Indented by two spaces a level, members on lines of their own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_value(self, 0, f)
    }
}

fn write_value(value: &Json, depth: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let inner = "  ".repeat(depth + 1);
    let outer = "  ".repeat(depth);
    match value {
        Json::Null => f.write_str("null"),
        Json::Bool(b) => write!(f, "{b}"),
        Json::Number(n) => write!(f, "{n}"),
        Json::Negative(n) => write!(f, "{n}"),
        Json::Text(t) => write_text(t, f),
        Json::List(items) if items.is_empty() => f.write_str("[]"),
        Json::List(items) => {
            for (i, item) in items.iter().enumerate() {
                write!(f, "{}\n{inner}", if i == 0 { "[" } else { "," })?;
                write_value(item, depth + 1, f)?;
            }
            write!(f, "\n{outer}]")
        }
        Json::Object(members) if members.is_empty() => f.write_str("{}"),
        Json::Object(members) => {
            for (i, (key, item)) in members.iter().enumerate() {
                write!(f, "{}\n{inner}", if i == 0 { "{" } else { "," })?;
                write_text(key, f)?;
                f.write_str(": ")?;
                write_value(item, depth + 1, f)?;
            }
            write!(f, "\n{outer}}}")
        }
    }
}

fn write_text(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc8259_values_and_escapes() {
        let value = object! {
            "a" => 1u64,
            "b" => "q\"\\\n\u{1}é",
            "c" => Json::List(vec![true.into(), Json::Null, Json::List(vec![]), object!{}]),
            "d" => Option::<u64>::None,
        };
        let expected = "{\n  \"a\": 1,\n  \"b\": \"q\\\"\\\\\\n\\u0001é\",\n  \"c\": [\n    true,\n    null,\n    [],\n    {}\n  ],\n  \"d\": null\n}";
        assert_eq!(value.to_string(), expected);
    }
}
