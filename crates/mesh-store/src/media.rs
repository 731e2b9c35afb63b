//! Content types, from the name's end or from the first bytes.

/// `None`: the name says nothing.
fn by_name(name: &str) -> Option<&'static str> {
    let (_, extension) = name.rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "txt" | "log" | "conf" | "toml" | "rs" | "c" | "h" | "py" | "sh" => "text/plain; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "xml" => "text/xml; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "mp3" => "audio/mpeg",
        "ogg" | "oga" | "opus" => "audio/ogg",
        "flac" => "audio/flac",
        "wav" => "audio/wav",
        "mp4" | "m4v" => "video/mp4",
        "webm" => "video/webm",
        "ogv" => "video/ogg",
        "mkv" => "video/x-matroska",
        "pdf" => "application/pdf",
        "epub" => "application/epub+zip",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        "xz" => "application/x-xz",
        "tar" => "application/x-tar",
        "wasm" => "application/wasm",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "apk" => "application/vnd.android.package-archive",
        _ => return None,
    })
}

/// What the first bytes look like.
fn by_bytes(bytes: &[u8]) -> &'static str {
    const MAGIC: &[(&[u8], &str)] = &[
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF8", "image/gif"),
        (b"%PDF-", "application/pdf"),
        (b"PK\x03\x04", "application/zip"),
        (b"\x1f\x8b", "application/gzip"),
        (b"OggS", "audio/ogg"),
        (b"ID3", "audio/mpeg"),
        (b"\x1a\x45\xdf\xa3", "video/webm"),
    ];
    if let Some((_, media)) = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return media;
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        return "video/mp4";
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // a character may be cut off at the end
        Err(e) if e.error_len().is_none() => {
            std::str::from_utf8(bytes.get(..e.valid_up_to()).unwrap_or(&[])).unwrap_or("")
        }
        Err(_) => return UNKNOWN,
    };
    let control = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\x0c' | '\x1b');
    if text.contains(control) {
        return UNKNOWN;
    }
    if json_start(text) {
        return "application/json";
    }
    let start = text.trim_start().get(..15).unwrap_or(text.trim_start()).to_ascii_lowercase();
    let html = ["<!doctype html", "<html", "<head", "<body", "<script", "<title", "<h1", "<!--"];
    if html.iter().any(|tag| start.starts_with(tag)) {
        "text/html; charset=utf-8"
    } else {
        "text/plain; charset=utf-8"
    }
}

/// Whether `text` is an object or a list in JSON (RFC 8259), or the start of one.
fn json_start(text: &str) -> bool {
    let mut open: Vec<u8> = Vec::new();
    let mut rest = text.trim().as_bytes();
    if !matches!(rest.first(), Some(b'{' | b'[')) {
        return false;
    }
    // what may come next: a value (or the end of an empty list), a key (or the end of an empty map), what follows a value
    let (mut value, mut key, mut fresh) = (true, false, false);
    while let Some((first, left)) = rest.split_first() {
        rest = left;
        match first {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'{' | b'[' if value => {
                open.push(*first);
                (value, key, fresh) = (*first == b'[', *first == b'{', true);
            }
            b'}' | b']' if (fresh || !(value || key)) && open.last() == Some(&(*first - 2)) => {
                open.pop();
                (value, key, fresh) = (false, false, false);
                if open.is_empty() {
                    return rest.trim_ascii().is_empty();
                }
            }
            b'"' if value || key => {
                let mut escaped = false;
                let end = rest.iter().position(|b| {
                    let ends = *b == b'"' && !escaped;
                    escaped = *b == b'\\' && !escaped;
                    ends
                });
                let Some(end) = end else { return true };
                rest = rest.get(end + 1..).unwrap_or(&[]);
                if key {
                    rest = rest.trim_ascii_start();
                    match rest.split_first() {
                        Some((b':', left)) => rest = left,
                        Some(_) => return false,
                        None => return true,
                    }
                }
                (value, key, fresh) = (key, false, false);
            }
            b',' if !value && !key => {
                let map = open.last() == Some(&b'{');
                (value, key, fresh) = (!map, map, false);
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' if value => {
                let end = rest.iter().position(|b| !(b.is_ascii_alphanumeric() || b"+-.".contains(b)));
                let Some(end) = end else { return true };
                rest = rest.get(end..).unwrap_or(&[]);
                (value, fresh) = (false, false);
            }
            _ => return false,
        }
    }
    true
}

/// What nothing is known of.
pub(crate) const UNKNOWN: &str = "application/octet-stream";

/// Bytes [`of()`] looks at.
pub(crate) const SNIFF: u64 = 512;

/// The content type of a file of that name with these first bytes.
pub(crate) fn of(name: &str, first: &[u8]) -> &'static str {
    by_name(name).unwrap_or_else(|| by_bytes(first))
}

/// Whether [`of()`] needs no bytes.
pub(crate) fn name_says(name: &str) -> bool {
    by_name(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_win_over_bytes() {
        assert_eq!(of("a.PNG", b"text"), "image/png");
        assert_eq!(of("noextension", b"\x89PNG\r\n\x1a\n.."), "image/png");
        assert_eq!(of("x.unknown", b"hello \xc3\xa9\n"), "text/plain; charset=utf-8");
        assert_eq!(of("x", b"cut off: \xc3"), "text/plain; charset=utf-8");
        assert_eq!(of("x", b"\xff\xfe\x00"), "application/octet-stream");
        assert_eq!(of("x", b"\x00\x01"), "application/octet-stream");
        assert_eq!(of("", b" <!DOCTYPE HTML><p>"), "text/html; charset=utf-8");
        assert_eq!(of("", b"\xff\xd8\xff\xe0"), "image/jpeg");
        assert_eq!(of("", b""), "text/plain; charset=utf-8");
    }

    #[test]
    fn json_is_told_from_text() {
        for json in [
            "{}",
            "[]",
            " {\"a\": [1, -2.5e3, true, null, \"x\\\"}\"]}\n",
            "[{\"a\":\"cut of",
            "{\"a\": 12",
            "{\"a\"",
            "[[],{}",
        ] {
            assert_eq!(of("", json.as_bytes()), "application/json", "{json}");
        }
        for text in [
            "{a: 1}",
            "[TODO] x",
            "{} and more",
            "{\"a\" 1}",
            "[1 2]",
            "{\"a\":1,}",
            "[1,]",
            "\"text\"",
            "12",
            "{]",
        ] {
            assert_eq!(of("", text.as_bytes()), "text/plain; charset=utf-8", "{text}");
        }
    }
}
