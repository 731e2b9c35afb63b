//! What services say is wrong, as far as the person at the console has to be told.

use std::collections::BTreeMap;

/// So much of one service is told at once; the rest is in its status.
const MAX: usize = 8;

/// What the services' last answers said was wrong, and what was told of it.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    last: BTreeMap<usize, Vec<String>>,
    told: Vec<(usize, String)>,
}

impl Complaints {
    /// What is to be told after an answer of service `i`: what its last answer said, too (much passes by itself), and
    /// nobody has told. What was gone in between is told again.
    pub(crate) fn news(&mut self, i: usize, mut now: Vec<String>, known: &[String]) -> Vec<String> {
        now.truncate(MAX);
        self.told.retain(|(of, text)| *of != i || now.contains(text));
        let last = self.last.remove(&i).unwrap_or_default();
        let is_told = |text: &String| known.contains(text) || self.told.iter().any(|(_, t)| t == text);
        let news: Vec<String> = now.iter().filter(|t| last.contains(*t) && !is_told(t)).cloned().collect();
        self.told.extend(news.iter().map(|text| (i, text.clone())));
        self.last.insert(i, now);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_told_once_and_what_passes_is_not() {
        let mut c = Complaints::default();
        let say = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert_eq!(c.news(0, say(&["bloor is taken", "router is silent"]), &[]), say(&[]));
        assert_eq!(c.news(0, say(&["bloor is taken"]), &[]), say(&["bloor is taken"]));
        assert_eq!(c.news(0, say(&["bloor is taken"]), &[]), say(&[]));
        // Another service with the same complaint, and one that the set-up has told.
        for _ in 0..3 {
            assert_eq!(c.news(1, say(&["bloor is taken", "typing"]), &say(&["typing"])), say(&[]));
        }
        // Mended, and there again.
        assert_eq!(c.news(0, say(&[]), &[]), say(&[]));
        assert_eq!(c.news(0, say(&["bloor is taken"]), &[]), say(&[]));
        assert_eq!(c.news(0, say(&["bloor is taken"]), &[]), say(&["bloor is taken"]));
    }
}
