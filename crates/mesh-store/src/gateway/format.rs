//! Which representation is asked for: `format` and its companions in the query, `Accept`.

use crate::target::query_value;

/// Items of an Accept header that are looked at.
const MAX_ACCEPT: usize = 64;

pub(crate) const RAW: &str = "application/vnd.ipld.raw";
pub(crate) const CAR: &str = "application/vnd.ipld.car";
pub(crate) const TAR: &str = "application/x-tar";
pub(crate) const DAG_JSON: &str = "application/vnd.ipld.dag-json";
pub(crate) const DAG_CBOR: &str = "application/vnd.ipld.dag-cbor";
pub(crate) const JSON: &str = "application/json";
pub(crate) const CBOR: &str = "application/cbor";
pub(crate) const IPNS_RECORD: &str = "application/vnd.ipfs.ipns-record";

/// A representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// What the content is by itself.
    Default,
    /// As [`Format::Default`]; data without files is shown as a page.
    Html,
    Raw,
    Car(CarParams),
    Tar,
    DagJson,
    DagCbor,
    Json,
    Cbor,
    IpnsRecord,
}

impl Format {
    /// What stands for it in `?format=`.
    pub(crate) const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Default | Self::Html => return None,
            Self::Raw => "raw",
            Self::Car(_) => "car",
            Self::Tar => "tar",
            Self::DagJson => "dag-json",
            Self::DagCbor => "dag-cbor",
            Self::Json => "json",
            Self::Cbor => "cbor",
            Self::IpnsRecord => "ipns-record",
        })
    }
}

/// Which blocks below the path's end a CAR holds (IPIP-402).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DagScope {
    Block,
    Entity,
    All,
}

/// `entity-bytes=from:to`, both inclusive; negative numbers count from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntityBytes {
    pub(crate) from: i64,
    /// `None`: to the end.
    pub(crate) to: Option<i64>,
}

/// What [`EntityBytes`] means for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    /// Bytes `start .. end`, at least one.
    Bytes(u64, u64),
    /// No byte.
    Empty,
    /// It begins behind the file's end.
    Outside,
}

impl EntityBytes {
    fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once(':')?;
        let number = |text: &str| {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| text.parse::<i64>().ok()).flatten()
        };
        Some(Self { from: number(from)?, to: if to == "*" { None } else { Some(number(to)?) } })
    }

    pub(crate) fn within(self, size: u64) -> Span {
        let place = |at: i64| {
            if at < 0 { i128::from(size) + i128::from(at) } else { i128::from(at) }
        };
        let first = place(self.from).max(0);
        let last = self.to.map_or(i128::from(size) - 1, place).min(i128::from(size) - 1);
        if size > 0 && first >= i128::from(size) {
            Span::Outside
        } else if last < first {
            Span::Empty
        } else {
            Span::Bytes(first as u64, last as u64 + 1)
        }
    }
}

/// How a CAR is made (IPIP-402, IPIP-412). The order is always depth first, the version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CarParams {
    pub(crate) scope: DagScope,
    pub(crate) bytes: Option<EntityBytes>,
    /// Blocks met again are sent again.
    pub(crate) dups: bool,
}

/// What came of the negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Negotiated {
    pub(crate) format: Format,
    /// It was chosen by `Accept` alone.
    pub(crate) by_accept: bool,
    /// Anything else would do, too.
    pub(crate) any: bool,
}

/// Why nothing fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// 400.
    Invalid(String),
    /// 406.
    NotAcceptable(String),
}

/// Chooses: `format` before `Accept` (IPIP-523).
pub(crate) fn negotiate<'a>(
    query: Option<&str>,
    accept: impl Iterator<Item = &'a str>,
) -> Result<Negotiated, Unfit> {
    let offers = offers(accept);
    if let Some(name) = query_value(query, "format") {
        let media = media_of(&name).ok_or_else(|| {
            Unfit::Invalid(format!("format {name:?} is not known; there are raw, car, tar, dag-json, dag-cbor, json, cbor, ipns-record"))
        })?;
        let params = offers.iter().find(|offer| offer.media == media).map(|offer| offer.params.as_slice());
        let format = format_of(media, params.unwrap_or(&[]), query)?;
        return Ok(Negotiated { format, by_accept: false, any: false });
    }
    let any = offers.iter().any(|offer| offer.media == "*/*");
    let mut unfit = None;
    for offer in &offers {
        match format_of(&offer.media, &offer.params, query) {
            Ok(format) => return Ok(Negotiated { format, by_accept: format.name().is_some(), any }),
            Err(Unfit::Invalid(_)) if !is_known(&offer.media) => {}
            Err(e) => unfit = unfit.or(Some(e)),
        }
    }
    match unfit {
        Some(e) if !any => Err(e),
        _ => Ok(Negotiated { format: Format::Default, by_accept: false, any: true }),
    }
}

/// One item of an Accept header.
struct Offer {
    media: String,
    params: Vec<(String, String)>,
    /// Weight in thousandths.
    weight: u32,
}

/// The items that mean something, the most wanted first (RFC 9110 §12.5.1).
fn offers<'a>(accept: impl Iterator<Item = &'a str>) -> Vec<Offer> {
    let items = accept.flat_map(|header| header.split(',')).take(MAX_ACCEPT);
    let mut offers: Vec<Offer> = items.filter_map(offer).filter(|offer| offer.weight > 0).collect();
    offers.sort_by_key(|offer| std::cmp::Reverse(offer.weight));
    offers
}

fn offer(item: &str) -> Option<Offer> {
    let mut parts = item.split(';');
    let media = parts.next()?.trim().to_ascii_lowercase();
    let mut params = Vec::new();
    let mut weight = 1000;
    for part in parts {
        let (name, value) = part.split_once('=')?;
        let (name, value) =
            (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"').to_ascii_lowercase());
        if name == "q" {
            weight = (value.parse::<f32>().ok()?.clamp(0.0, 1.0) * 1000.0) as u32;
        } else {
            params.push((name, value));
        }
    }
    Some(Offer { media, params, weight })
}

fn media_of(format: &str) -> Option<&'static str> {
    Some(match format {
        "raw" => RAW,
        "car" => CAR,
        "tar" => TAR,
        "dag-json" => DAG_JSON,
        "dag-cbor" => DAG_CBOR,
        "json" => JSON,
        "cbor" => CBOR,
        "ipns-record" => IPNS_RECORD,
        "html" => "text/html",
        _ => return None,
    })
}

fn is_known(media: &str) -> bool {
    [RAW, CAR, TAR, DAG_JSON, DAG_CBOR, JSON, CBOR, IPNS_RECORD, "text/html", "*/*"].contains(&media)
}

fn format_of(media: &str, params: &[(String, String)], query: Option<&str>) -> Result<Format, Unfit> {
    Ok(match media {
        "text/html" => Format::Html,
        "*/*" => Format::Default,
        RAW => Format::Raw,
        CAR => Format::Car(car_params(params, query)?),
        TAR => Format::Tar,
        DAG_JSON => Format::DagJson,
        DAG_CBOR => Format::DagCbor,
        JSON => Format::Json,
        CBOR => Format::Cbor,
        IPNS_RECORD => Format::IpnsRecord,
        other => return Err(Unfit::Invalid(format!("media type {other:?} is not known"))),
    })
}

/// Parameters of a CAR: those in the query win over those of the media type.
fn car_params(params: &[(String, String)], query: Option<&str>) -> Result<CarParams, Unfit> {
    let value = |name: &str| {
        let asked = query_value(query, &format!("car-{name}")).filter(|v| !v.is_empty());
        asked.or_else(|| params.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()))
    };
    if let Some(version) = value("version").filter(|v| v != "1") {
        return Err(Unfit::NotAcceptable(format!("CAR version {version:?} is not served, only version 1")));
    }
    if let Some(order) = value("order").filter(|v| !matches!(v.as_str(), "" | "dfs" | "unk")) {
        return Err(Unfit::NotAcceptable(format!("CAR order {order:?} is not served, only dfs")));
    }
    let dups = match value("dups").as_deref() {
        None | Some("" | "n") => false,
        Some("y") => true,
        Some(other) => return Err(Unfit::NotAcceptable(format!("CAR dups {other:?}: write y or n"))),
    };
    let bytes = match query_value(query, "entity-bytes").filter(|v| !v.is_empty()) {
        None => None,
        Some(text) => Some(EntityBytes::parse(&text).ok_or_else(|| {
            Unfit::Invalid(format!("entity-bytes {text:?}: write from:to, as 0:1023, 1024:* or -512:*"))
        })?),
    };
    let scope = match query_value(query, "dag-scope").as_deref() {
        None | Some("") if bytes.is_some() => DagScope::Entity,
        None | Some("" | "all") => DagScope::All,
        Some("entity") => DagScope::Entity,
        Some("block") => DagScope::Block,
        Some(other) => {
            return Err(Unfit::Invalid(format!("dag-scope {other:?}: write block, entity or all")));
        }
    };
    Ok(CarParams { scope, bytes, dups })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(query: &str, accept: &str) -> Format {
        negotiate(Some(query), std::iter::once(accept)).unwrap().format
    }

    const ALL: CarParams = CarParams { scope: DagScope::All, bytes: None, dups: false };

    #[test]
    fn ipip523_format_wins_over_accept() {
        assert_eq!(chosen("format=raw", CAR), Format::Raw);
        assert_eq!(chosen("", CAR), Format::Car(ALL));
        assert_eq!(
            chosen("format=car", &format!("{CAR}; order=dfs; dups=y")),
            Format::Car(CarParams { dups: true, ..ALL })
        );
        assert_eq!(chosen("format=car&car-dups=n", &format!("{CAR}; dups=y")), Format::Car(ALL));
        assert!(matches!(negotiate(Some("format=foo"), std::iter::empty()), Err(Unfit::Invalid(_))));
    }

    #[test]
    fn rfc9110_12_5_1_weights() {
        assert_eq!(chosen("", &format!("foo, {DAG_JSON},bar")), Format::DagJson);
        assert_eq!(chosen("", &format!("{RAW};q=0.2, {CAR};q=0.5")), Format::Car(ALL));
        assert_eq!(chosen("", &format!("{RAW};q=0, */*")), Format::Default);
        assert_eq!(
            chosen("", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            Format::Html
        );
        assert_eq!(chosen("", "*/*"), Format::Default);
        assert_eq!(chosen("", ""), Format::Default);
        assert_eq!(
            chosen("", &format!("{CAR};order=foo, {CAR};order=dfs;dups=y;q=0.5")),
            Format::Car(CarParams { dups: true, ..ALL })
        );
        let accept = format!("{CAR};version=2");
        assert!(matches!(negotiate(None, std::iter::once(accept.as_str())), Err(Unfit::NotAcceptable(_))));
    }

    #[test]
    fn ipip402_parameters() {
        let car = |query: &str| match negotiate(Some(&format!("format=car&{query}")), std::iter::empty()) {
            Ok(Negotiated { format: Format::Car(params), .. }) => Ok(params),
            Ok(other) => panic!("{other:?}"),
            Err(e) => Err(e),
        };
        assert_eq!(car("dag-scope=block").unwrap().scope, DagScope::Block);
        let bytes = car("entity-bytes=0:*").unwrap();
        assert_eq!((bytes.scope, bytes.bytes), (DagScope::Entity, Some(EntityBytes { from: 0, to: None })));
        for wrong in [
            "dag-scope=some",
            "entity-bytes=1",
            "entity-bytes=*:1",
            "entity-bytes=+1:2",
            "entity-bytes=1:99999999999999999999",
            "entity-bytes=--1:2",
        ] {
            assert!(matches!(car(wrong), Err(Unfit::Invalid(_))), "{wrong}");
        }
        for wrong in ["car-version=2", "car-order=bfs", "car-dups=maybe"] {
            assert!(matches!(car(wrong), Err(Unfit::NotAcceptable(_))), "{wrong}");
        }
    }

    #[test]
    fn entity_bytes_within_a_file() {
        let within = |text: &str, size| EntityBytes::parse(text).unwrap().within(size);
        assert_eq!(within("0:*", 1026), Span::Bytes(0, 1026));
        assert_eq!(within("512:1023", 1026), Span::Bytes(512, 1024));
        assert_eq!(within("512:-256", 1026), Span::Bytes(512, 771));
        assert_eq!(within("-5:*", 1026), Span::Bytes(1021, 1026));
        assert_eq!(within("-9999:-3", 1026), Span::Bytes(0, 1024));
        assert_eq!(within("0:0", 1026), Span::Bytes(0, 1));
        assert_eq!(within("5:2", 1026), Span::Empty);
        assert_eq!(within("0:-1027", 1026), Span::Empty);
        assert_eq!(within("1026:*", 1026), Span::Outside);
        assert_eq!(within("0:*", 0), Span::Empty);
        assert_eq!(within(&format!("0:{}", i64::MAX), u64::MAX), Span::Bytes(0, 1 << 63));
        assert_eq!(within(&format!("{}:*", i64::MIN), u64::MAX), Span::Bytes((1 << 63) - 1, u64::MAX));
    }
}
