//! What HTTP clients and `_redirects` files can say to the gateway: paths, queries, Accept, ranges, hosts.
#![no_main]
#![allow(dead_code, unreachable_pub)]
use libfuzzer_sys::fuzz_target;

#[path = "../../mesh-store/src/gateway/format.rs"]
mod format;
#[path = "../../mesh-store/src/gateway/redirects.rs"]
mod redirects;
#[path = "../../mesh-store/src/gateway/subdomain.rs"]
mod subdomain;
#[path = "../../mesh-store/src/target.rs"]
mod target;

fuzz_target!(|bytes: &[u8]| {
    let _ = redirects::Redirects::parse(bytes);
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let _ = format::negotiate(Some(first), rest.lines());
    let _ = target::parse_range(first, rest.len() as u64);
    let _ = target::none_match(first, rest);
    let _ = target::Target::from_text(first);
    let hosts = subdomain::Hosts { isolated: vec!["localhost".into()], own: "bloor.local".into() };
    let _ = hosts.place(first);
    if let Ok(path) = target::ContentPath::from_url(first) {
        assert!(
            path.segments
                .iter()
                .all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('/'))
        );
        if let Ok(rules) = redirects::Redirects::parse(rest.as_bytes())
            && let Some(answer) = rules.find(&path.segments)
        {
            assert!(answer.to.bytes().all(|b| b.is_ascii_graphic()));
        }
    }
});
