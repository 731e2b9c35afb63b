//! Pages made by the gateway itself.

use std::fmt::Write as _;

use content_id::Cid;
use content_id::dagpb::Link;

use crate::target::{Target, encode_percent};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:1rem auto;padding:0 1rem}\
table{border-collapse:collapse;width:100%}td{padding:.25rem .5rem;border-bottom:1px solid #8883}\
td:last-child{text-align:right;white-space:nowrap}code{font-size:.8em;opacity:.7;word-break:break-all}\
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

/// A directory as a page. `more`: entries were left out.
pub(crate) fn page(target: &Target, cid: &Cid, entries: &[Link], more: bool) -> String {
    let title = escape(&format!("/ipfs/{}/{}", target.root, target.segments.join("/")));
    let mut out = String::with_capacity(1024 + entries.len() * 160);
    let _ = writeln!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style>\
         </head><body><h1>Index of {title}</h1><p><code>{cid}</code></p><table>"
    );
    if !target.segments.is_empty() {
        out.push_str("<tr><td><a href=\"..\">..</a></td><td></td></tr>\n");
    }
    for entry in entries {
        let name = entry.name.as_deref().unwrap_or("");
        let size = entry.tsize.map(human).unwrap_or_default();
        // "./" keeps a name with a colon from being read as a scheme
        let _ = writeln!(
            out,
            "<tr><td><a href=\"./{}\">{}</a><br><code>{}</code></td><td>{size}</td></tr>",
            encode_percent(name),
            escape(name),
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

    #[test]
    fn names_can_not_break_out_of_the_page() {
        let target = Target {
            root: "bafkqaaa".parse().unwrap(),
            segments: vec!["<script>".into()],
            trailing_slash: true,
        };
        let link = Link { cid: target.root.clone(), name: Some("\"><b>:x".into()), tsize: Some(2048) };
        let page = page(&target, &target.root, &[link], true);
        assert!(!page.contains("<script>") && !page.contains("<b>"), "{page}");
        assert!(page.contains("./%22%3E%3Cb%3E%3Ax") && page.contains("2.0 KiB"));
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
