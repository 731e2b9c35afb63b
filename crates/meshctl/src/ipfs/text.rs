//! Texts as kubo writes them: columns, names, sizes, modes, times, JSON.

use crate::json::Json;

/// Lines of cells, left-aligned, one blank between; every cell but the last of a line is padded to its column, which
/// has at least `width` characters.
pub(crate) fn columns(rows: &[Vec<String>], width: usize) -> String {
    let length = |cell: &String| cell.chars().count();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column| rows.iter().filter_map(|row| row.get(column)).map(length).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(|column| (widest(column) + 1).max(width)).collect();
    let mut out = String::new();
    for row in rows {
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            out.push_str(cell);
            if at + 1 < row.len() {
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(length(cell))));
            }
        }
        out.push('\n');
    }
    out
}

/// A name: one with a backslash or with characters that can't be seen is written with Go's escapes.
pub(crate) fn shown(name: &str) -> String {
    if !name.contains(|c| c == '\\' || !is_printable(c)) {
        return name.to_owned();
    }
    let mut out = String::new();
    for c in name.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if is_printable(c) => out.push(c),
            c if c.is_ascii() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out
}

fn is_printable(c: char) -> bool {
    if c.is_control() || (c.is_whitespace() && c != ' ') {
        return false;
    }
    // behind another character a combining one is not escaped
    c.is_ascii() || !format!("a{c}").escape_debug().to_string().contains("\\u{")
}

/// A size in powers of 1000, two digits at least.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let mut unit = 1u64;
    let mut name = "B";
    for larger in UNITS {
        if bytes / unit < 1000 {
            break;
        }
        unit *= 1000;
        name = larger;
    }
    if bytes < 10 || unit == 1 {
        return format!("{bytes} {name}");
    }
    let tenths = (u128::from(bytes) * 10 + u128::from(unit / 2)) / u128::from(unit);
    if tenths < 100 {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    } else {
        format!("{} {name}", (tenths + 5) / 10)
    }
}

/// Permission bits with a letter in front for what they are of, as `ls -l` has them; `-` where there are none.
pub(crate) fn mode(mode: Option<u32>, of: char) -> String {
    let Some(mode) = mode.filter(|mode| *mode != 0) else { return "-".into() };
    let has = |bit: u32| mode & bit != 0;
    let plain = |bit: u32, letter: char| if has(bit) { letter } else { '-' };
    let execute = |special: u32, bit: u32, letter: char| match (has(special), has(bit)) {
        (true, true) => letter,
        (true, false) => letter.to_ascii_uppercase(),
        (false, _) => plain(bit, 'x'),
    };
    let letters = [
        of,
        plain(0o400, 'r'),
        plain(0o200, 'w'),
        execute(0o4000, 0o100, 's'),
        plain(0o040, 'r'),
        plain(0o020, 'w'),
        execute(0o2000, 0o010, 's'),
        plain(0o004, 'r'),
        plain(0o002, 'w'),
        execute(0o1000, 0o001, 't'),
    ];
    letters.into_iter().collect()
}

/// A time in seconds since 1970, in UTC: with the hour if it lies within six months before `now`, else with the year;
/// `-` if there is none.
pub(crate) fn time(time: Option<i64>, now: i64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Some(time) = time else { return "-".into() };
    let (year, month, day) = date_of(time.div_euclid(86_400));
    let name = usize::try_from(month - 1).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&"?");
    let (year_now, month_now, day_now) = date_of(now.div_euclid(86_400));
    let (past_year, past_month) =
        if month_now > 6 { (year_now, month_now - 6) } else { (year_now - 1, month_now + 6) };
    let past = (days_to(past_year, past_month) + day_now - 1) * 86_400 + now.rem_euclid(86_400);
    if time > past && time < now + 86_400 {
        let second = time.rem_euclid(86_400);
        format!("{name} {day:02} {:02}:{:02}", second / 3600, second / 60 % 60)
    } else {
        format!("{name} {day:02}  {year}")
    }
}

/// Days from 1970-01-01 to the first of a month.
fn days_to(year: i64, month: i64) -> i64 {
    // years begin in March here, so that the leap day is the last one
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5
        - 719_468
}

/// Year, month (1 to 12) and day of a day since 1970-01-01.
fn date_of(day: i64) -> (i64, i64, i64) {
    let since = day + 719_468;
    let (era, of_era) = (since.div_euclid(146_097), since.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (year, month) = (year + era * 400, if month < 10 { month + 3 } else { month - 9 });
    let year = if month <= 2 { year + 1 } else { year };
    (year, month, day - days_to(year, month) + 1)
}

/// JSON on one line; what HTML would take for markup is escaped.
pub(crate) fn json(value: &Json) -> String {
    value.compact().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::object;

    #[test]
    fn columns_line_up_and_the_last_is_not_padded() {
        let rows =
            vec![vec!["Qm1".into(), "-".into(), "dir/".into()], vec!["Qm22".into(), "12".into(), "f".into()]];
        assert_eq!(columns(&rows, 1), "Qm1  -  dir/\nQm22 12 f\n");
        assert_eq!(columns(&rows, 10), "Qm1       -         dir/\nQm22      12        f\n");
    }

    #[test]
    fn names_as_go_quotes_them() {
        for (name, expected) in [
            ("plain \"name\" é 日本 e\u{301}", "plain \"name\" é 日本 e\u{301}"),
            ("a\\b\"", "a\\\\b\""),
            ("\u{7}\n\t\u{1b}[2J\u{7f}", "\\a\\n\\t\\x1b[2J\\x7f"),
            ("\u{a0}\u{200b}\u{e000}\u{10ffff}", "\\u00a0\\u200b\\ue000\\U0010ffff"),
        ] {
            assert_eq!(shown(name), expected);
        }
    }

    #[test]
    fn sizes_as_humanize_writes_them() {
        for (bytes, expected) in [
            (0, "0 B"),
            (9, "9 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1234, "1.2 kB"),
            (82_854_982, "83 MB"),
            (9_949_999, "9.9 MB"),
            (2_000_000_000, "2.0 GB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn modes_and_times_as_ls_writes_them() {
        assert_eq!(mode(None, '-'), "-");
        assert_eq!(mode(Some(0o644), '-'), "-rw-r--r--");
        assert_eq!(mode(Some(0o755), 'd'), "drwxr-xr-x");
        assert_eq!(mode(Some(0o7644), '-'), "-rwSr-Sr-T");
        assert_eq!(mode(Some(0o7777), 'l'), "lrwsrwsrwt");
        let now = 1_700_000_000; // 2023-11-14 22:13:20
        assert_eq!(time(None, now), "-");
        assert_eq!(time(Some(now), now), "Nov 14 22:13");
        assert_eq!(time(Some(0), now), "Jan 01  1970");
        assert_eq!(time(Some(-1), now), "Dec 31  1969");
        assert_eq!(time(Some(951_782_400), now), "Feb 29  2000");
        let six_months = 1_684_102_400; // 2023-05-14 22:13:20
        assert_eq!(time(Some(six_months), now), "May 14  2023");
        assert_eq!(time(Some(six_months + 1), now), "May 14 22:13");
        assert_eq!(time(Some(now + 86_400), now), "Nov 15  2023");
        for day in -800_000..800_000 {
            let (year, month, day_of_month) = date_of(day);
            assert!((1..=12).contains(&month) && (1..=31).contains(&day_of_month), "{day}");
            assert_eq!(days_to(year, month) + day_of_month - 1, day);
        }
    }

    #[test]
    fn json_as_go_writes_it() {
        let value =
            object! { "a" => "<&>\"\n", "b" => Json::List(vec![1u64.into(), Json::Null]), "c" => object!{} };
        assert_eq!(json(&value), "{\"a\":\"\\u003c\\u0026\\u003e\\\"\\n\",\"b\":[1,null],\"c\":{}}");
    }
}
