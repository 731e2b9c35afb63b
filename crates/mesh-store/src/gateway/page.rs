//! Pages made by the gateway itself.

use std::fmt::Write as _;

use content_id::Cid;
use content_id::dagpb::Link;

use crate::target::{ContentPath, encode_percent};

/// Changes when pages of the same content do.
pub(crate) const VERSION: u32 = 3;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:1rem auto;padding:0 1rem;overflow-wrap:anywhere}\
h1{font-size:1.5rem}table{border-collapse:collapse;width:100%}td{padding:.25rem .5rem;border-bottom:1px solid #8883}\
td:last-child{text-align:right;white-space:nowrap}pre{overflow-x:auto}code{font-size:.8em;opacity:.7}\
@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}a{color:#8bf}}";

/// Address of the text "Hello World" and a newline, as `ipfs add` gives it.
const HELLO: &str = "QmWATWQ7fVPP2EFGu71UkfnqhYXDYH566qy47CnJDgvs8u";

/// What stands at `/`: which node this is, and how content is asked for.
pub(crate) fn welcome(node: &str) -> String {
    let node = escape(node);
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{node}</title><style>{STYLE}</style></head><body>\
         <h1>{node}</h1><p>This is a node of a mesh of neighbours. It needs no Internet: it finds the nodes around it, \
         passes their traffic on, and keeps and shares files.</p>\
         <h2>Fetch a file</h2><p>Every file has an address that follows from its content, its CID. Write it behind \
         <code>/ipfs/</code> in this browser's address line: <code>/ipfs/&lt;cid&gt;</code>. If this node does not have \
         the file, it asks the others.</p>\
         <h2>Share one</h2><p>On the node, by SSH or on its serial console:</p>\
         <pre>echo \"Hello World\" | ipfs add</pre>\
         <p>From then on every node of the mesh can show it: <a href=\"/ipfs/{HELLO}\">/ipfs/{HELLO}</a></p>\
         </body></html>\n"
    )
}

/// Where the links of a page lead.
pub(crate) struct Links<'a> {
    /// The gateway's host with `//` before it, where the page itself is on another; or empty.
    pub(crate) gateway: &'a str,
    /// The path of the page itself, encoded, without a slash at its end.
    pub(crate) base: &'a str,
}

fn head(title: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style>\
         </head><body>"
    )
}

/// The path, each part a link to what it names.
fn crumbs(path: &ContentPath, gateway: &str) -> String {
    let mut so_far = format!("{gateway}/{}/{}", path.namespace.name(), encode_percent(&path.root));
    let mut out = format!("/{}/<a href=\"{so_far}\">{}</a>", path.namespace.name(), escape(&path.root));
    for segment in &path.segments {
        let _ = write!(so_far, "/{}", encode_percent(segment));
        let _ = write!(out, "/<a href=\"{so_far}\">{}</a>", escape(segment));
    }
    out
}

/// A directory as a page. `more`: entries were left out.
pub(crate) fn directory(
    path: &ContentPath,
    cid: &Cid,
    entries: &[Link],
    more: bool,
    links: &Links<'_>,
) -> String {
    let (gateway, base) = (escape(links.gateway), links.base);
    let mut out = head(&escape(&path.text()));
    out.reserve(1024 + entries.len() * 320);
    let _ = writeln!(
        out,
        "<h1>Index of {}</h1><p><code>{cid}</code> \
         <a href=\"{gateway}/ipfs/{cid}?format=car\">CAR</a> <a href=\"{gateway}/ipfs/{cid}?format=tar\">TAR</a></p><table>",
        crumbs(path, &gateway)
    );
    if !path.segments.is_empty() {
        let _ = writeln!(out, "<tr><td><a href=\"{base}/..\">..</a></td><td></td></tr>");
    }
    for entry in entries {
        let name = entry.name.as_deref().unwrap_or("");
        let encoded = encode_percent(name);
        let size = entry.tsize.map(human).unwrap_or_default();
        // encoded twice, as in the other implementations' pages
        let _ = writeln!(
            out,
            "<tr><td><a href=\"{base}/{encoded}\">{}</a><br>\
             <a class=\"ipfs-hash\" translate=\"no\" href=\"{gateway}/ipfs/{}?filename={}\"><code>{}</code></a></td>\
             <td>{size}</td></tr>",
            escape(name),
            entry.cid,
            encode_percent(&encoded),
            entry.cid
        );
    }
    out.push_str("</table>");
    if more {
        let _ = write!(out, "<p>Only the first {} entries are shown.</p>", entries.len());
    }
    out.push_str("</body></html>\n");
    out
}

/// A block of data as a page, its value as dag-json.
pub(crate) fn data(path: &ContentPath, cid: &Cid, json: &str) -> String {
    let mut out = head(&escape(&path.text()));
    let _ = writeln!(
        out,
        "<h1>{}</h1><p><code>{cid}</code> <a href=\"?format=raw\">block</a> <a href=\"?format=car\">CAR</a></p><pre>{}</pre></body></html>",
        escape(&path.text()),
        escape(json)
    );
    out
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = ((63 - (bytes | 1).leading_zeros()) / 10).min(4);
    let name = UNITS.get(unit as usize).unwrap_or(&"B");
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    if unit == 0 { format!("{bytes} B") } else { format!("{}.{} {name}", tenths / 10, tenths % 10) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Namespace;

    fn path(segments: &[&str]) -> ContentPath {
        ContentPath {
            namespace: Namespace::Ipfs,
            root: "bafkqaaa".into(),
            segments: segments.iter().map(ToString::to_string).collect(),
            trailing_slash: true,
        }
    }

    #[test]
    fn names_can_not_break_out_of_the_page() {
        let cid: Cid = "bafkqaaa".parse().unwrap();
        let link = Link { cid: cid.clone(), name: Some("\"><b>:x".into()), tsize: Some(2048) };
        let links = Links { gateway: "//\"><b>", base: "/ipfs/bafkqaaa/x" };
        let page = directory(&path(&["<script>"]), &cid, &[link], true, &links);
        assert!(!page.contains("<script>") && !page.contains("<b>"), "{page}");
        assert!(page.contains("/ipfs/bafkqaaa/x/%22%3E%3Cb%3E%3Ax") && page.contains("2.0 KiB"));
        assert!(!data(&path(&["<b>"]), &cid, "\"<script>\"").contains("<script>"));
    }

    #[test]
    fn crumbs_lead_to_each_part() {
        assert_eq!(
            crumbs(&path(&["\u{105}", "b"]), "//localhost:8080"),
            "/ipfs/<a href=\"//localhost:8080/ipfs/bafkqaaa\">bafkqaaa</a>\
             /<a href=\"//localhost:8080/ipfs/bafkqaaa/%C4%85\">\u{105}</a>\
             /<a href=\"//localhost:8080/ipfs/bafkqaaa/%C4%85/b\">b</a>"
        );
    }

    #[test]
    fn a_host_name_can_not_break_out_of_the_page() {
        assert!(!welcome("<script>").contains("<script>"));
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(1023), "1023 B");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(u64::MAX), "16777215.9 TiB");
    }
}
