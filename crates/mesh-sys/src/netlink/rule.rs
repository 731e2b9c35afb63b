//! Rules that say which routing table is asked (RTM_NEWRULE and its kin; `ip rule`).

use super::Error;
use super::codec::{Builder, attributes, text_of, u32_at, u32_of};
use crate::udp::Family;

const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_PROTOCOL: u16 = 21;

const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_UNREACHABLE: u8 = 7;

/// `struct fib_rule_hdr`: family, destination length, source length, TOS, table, two reserved, action, flags
const HEADER: usize = 12;

/// What a rule does with the packets it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleAction {
    /// Looks the destination up in a table. A route whose prefix is not longer than `suppress` bits counts
    /// as not found; without a route the next rule is asked.
    Lookup {
        /// The table.
        table: u32,
        /// Prefix length in bits.
        suppress: Option<u32>,
    },
    /// Answers "unreachable".
    Unreachable,
}

/// A rule for all packets of a family, or for those that come in on one interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// The family.
    pub family: Family,
    /// Rules are asked in ascending order; 0 is the local table, 32766 the main one.
    pub priority: u32,
    /// Only packets that come in here; `None`: all.
    pub incoming: Option<String>,
    /// What is done.
    pub action: RuleAction,
    /// Who made it (`linux/rtnetlink.h` RTPROT_…).
    pub protocol: u8,
}

pub(super) fn dump_request(family: Family) -> Builder {
    let mut fixed = [0; HEADER];
    fixed[0] = family.number();
    Builder::new(libc::RTM_GETRULE, 0, &fixed)
}

pub(super) fn change_request(kind: u16, how: u16, rule: &Rule) -> Builder {
    let mut fixed = [0; HEADER];
    fixed[0] = rule.family.number();
    let (action, table, suppress) = match rule.action {
        RuleAction::Lookup { table, suppress } => (FR_ACT_TO_TBL, Some(table), suppress),
        RuleAction::Unreachable => (FR_ACT_UNREACHABLE, None, None),
    };
    fixed[4] = table.and_then(|t| u8::try_from(t).ok()).unwrap_or(0);
    fixed[7] = action;
    let mut b = Builder::new(kind, how, &fixed);
    b.attribute_u32(FRA_PRIORITY, rule.priority);
    b.attribute(FRA_PROTOCOL, &[rule.protocol]);
    for (attribute, value) in [(FRA_TABLE, table), (FRA_SUPPRESS_PREFIXLEN, suppress)] {
        if let Some(value) = value {
            b.attribute_u32(attribute, value);
        }
    }
    if let Some(name) = &rule.incoming {
        b.attribute(FRA_IIFNAME, &[name.as_bytes(), &[0]].concat());
    }
    b
}

/// Reads the body of an RTM_NEWRULE; `None` for rules that [`Rule`] does not describe.
pub(super) fn parse(body: &[u8]) -> Result<Option<Rule>, Error> {
    let bad = || Error::Malformed("rule");
    let Some((fixed, rest)) = body.split_first_chunk::<HEADER>() else { return Err(bad()) };
    let [family, to, from, tos, table, _, _, action, ..] = *fixed;
    let family = match i32::from(family) {
        libc::AF_INET => Family::V4,
        libc::AF_INET6 => Family::V6,
        _ => return Ok(None),
    };
    // FIB_RULE_INVERT
    let inverted = u32_at(fixed, 8).is_some_and(|flags| flags & 2 != 0);
    if to != 0 || from != 0 || tos != 0 || inverted {
        return Ok(None);
    }
    let (mut table, mut suppress) = (u32::from(table), None);
    let mut rule = Rule { family, priority: 0, incoming: None, action: RuleAction::Unreachable, protocol: 0 };
    for attribute in attributes(rest) {
        match attribute? {
            (FRA_PRIORITY, v) => rule.priority = u32_of(v)?,
            (FRA_TABLE, v) => table = u32_of(v)?,
            (FRA_SUPPRESS_PREFIXLEN, v) => suppress = Some(u32_of(v)?).filter(|n| *n != u32::MAX),
            (FRA_IIFNAME, v) => rule.incoming = Some(text_of(v)),
            (FRA_PROTOCOL, v) => rule.protocol = *v.first().ok_or_else(bad)?,
            _ => {}
        }
    }
    match action {
        FR_ACT_TO_TBL => rule.action = RuleAction::Lookup { table, suppress },
        FR_ACT_UNREACHABLE => {}
        _ => return Ok(None),
    }
    Ok(Some(rule))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::codec;

    #[test]
    fn what_is_asked_for_reads_back() {
        for action in [
            RuleAction::Lookup { table: 107, suppress: Some(0) },
            RuleAction::Lookup { table: 70_000, suppress: None },
            RuleAction::Unreachable,
        ] {
            for (family, incoming) in [(Family::V4, None), (Family::V6, Some("eth0".to_owned()))] {
                let rule = Rule { family, priority: 32_100, incoming, action, protocol: 107 };
                let bytes = change_request(libc::RTM_NEWRULE, 0, &rule).finish(0, 1);
                let message = codec::messages(&bytes).next().unwrap().unwrap();
                assert_eq!(parse(message.body).unwrap(), Some(rule));
                for cut in 0..message.body.len() {
                    let _ = parse(&message.body[..cut]);
                }
            }
        }
        assert_eq!(parse(&[200; HEADER]).unwrap(), None);
    }
}
