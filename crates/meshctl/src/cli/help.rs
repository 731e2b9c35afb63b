//! Help and man page.

use super::{COMMANDS, Command, Flag, GLOBAL_FLAGS, IPFS};

fn left(flag: &Flag) -> String {
    let short = flag.short.map_or(String::new(), |s| format!("{s}, "));
    let value = flag.value.map_or(String::new(), |v| format!(" {v}"));
    format!("{short}{}{value}", flag.name)
}

fn flag_lines(flags: &[Flag]) -> String {
    flags.iter().map(|f| format!("  {:<20} {}\n", left(f), f.help)).collect()
}

/// Cuts `text` into lines of at most 78 characters.
fn wrap(text: &str) -> String {
    let mut out = String::new();
    let mut width = 0;
    for word in text.split_whitespace() {
        let n = word.chars().count();
        if width > 0 && width + 1 + n > 78 {
            out.push('\n');
            width = 0;
        } else if width > 0 {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += n;
    }
    out
}

/// Help for one command, or for all.
pub(crate) fn help(command: Option<&Command>) -> String {
    let Some(c) = command else {
        let mut text = String::from(
            "meshctl: the command line of a p2pmesh node\n\nusage: meshctl [flags] COMMAND [operands]\n\ncommands:\n",
        );
        let rows = COMMANDS.iter().map(|c| (c.name, c.about)).chain([IPFS]);
        text.extend(rows.map(|(name, about)| format!("  {name:<16} {about}\n")));
        text.push_str("\nflags:\n");
        text.push_str(&flag_lines(GLOBAL_FLAGS));
        text.push_str("\nmeshctl help COMMAND says more. Exit: 0 done, 1 not done, 2 wrong command line.\n");
        return text;
    };
    let mut text = format!("meshctl {}: {}\n\nusage: meshctl {} {}", c.name, c.about, c.name, c.usage);
    text = text.trim_end().to_owned() + "\n";
    if !c.details.is_empty() {
        text.push_str(&format!("\n{}\n", wrap(c.details)));
    }
    if !c.flags.is_empty() {
        text.push_str(&format!("\nflags:\n{}", flag_lines(c.flags)));
    }
    text
}

/// Text in roff: a backslash, a leading dot or quote, and dashes would mean something else.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}

fn roff_flags(flags: &[Flag]) -> String {
    flags.iter().map(|f| format!(".TP\n.B {}\n{}\n", roff(&left(f)), roff(f.help))).collect()
}

/// The man page.
pub(crate) fn man() -> String {
    let mut page = format!(
        ".TH MESHCTL 1 \"\" \"p2pmesh {}\"\n.SH NAME\nmeshctl \\- the command line of a p2pmesh node\n\
         .SH SYNOPSIS\n.B meshctl\n[flags]\n.I COMMAND\n[operands]\n.SH COMMANDS\n",
        env!("CARGO_PKG_VERSION")
    );
    for c in COMMANDS {
        page.push_str(&format!(".SS {} {}\n{}.\n", roff(c.name), roff(c.usage), roff(c.about)));
        if !c.details.is_empty() {
            page.push_str(&format!(".PP\n{}\n", roff(c.details)));
        }
        page.push_str(&roff_flags(c.flags));
    }
    page.push_str(&format!(".SS {} ARGUMENTS\n{}.\n", roff(IPFS.0), roff(IPFS.1)));
    page.push_str(&format!(".SH FLAGS\n{}", roff_flags(GLOBAL_FLAGS)));
    page.push_str(".SH EXIT STATUS\n0 done, 1 not done, 2 wrong command line.\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_command_and_flag_within_a_screen_width() {
        let all = help(None) + &COMMANDS.iter().map(|c| help(Some(c))).collect::<String>();
        for c in COMMANDS {
            assert!(all.contains(c.name));
            assert!(c.flags.iter().all(|f| all.contains(f.name)));
        }
        for line in all.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }

    #[test]
    fn the_man_page_has_no_stray_requests() {
        for line in man().lines().filter(|l| l.starts_with('.')) {
            let request = line.split(' ').next().unwrap();
            assert!([".TH", ".SH", ".SS", ".B", ".I", ".TP", ".PP"].contains(&request), "{line}");
        }
    }
}
