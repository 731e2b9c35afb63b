//! Completions for three shells.

use super::{COMMANDS, Command, Flag, GLOBAL_FLAGS, IPFS};

/// The completion script for `shell`, if we have one.
pub(crate) fn completions(shell: &str) -> Option<String> {
    match shell {
        "bash" => Some(bash()),
        "zsh" => Some(zsh()),
        "fish" => Some(fish()),
        _ => None,
    }
}

fn flag_words(flags: &[Flag]) -> Vec<&'static str> {
    flags.iter().flat_map(|f| f.short.into_iter().chain([f.name])).collect()
}

/// All that can follow a command: its words and its flags.
fn after(c: &Command) -> String {
    c.words.iter().copied().chain(flag_words(c.flags)).collect::<Vec<_>>().join(" ")
}

fn commands() -> String {
    COMMANDS.iter().map(|c| c.name).chain([IPFS.0]).collect::<Vec<_>>().join(" ")
}

fn bash() -> String {
    let mut cases = String::new();
    for c in COMMANDS {
        cases.push_str(&format!("        {}) words=\"{}\";;\n", c.name, after(c)));
    }
    format!(
        "# bash completion for meshctl\n_meshctl() {{\n    local cur=\"${{COMP_WORDS[COMP_CWORD]}}\" word command= words= i\n    \
         for ((i = 1; i < COMP_CWORD; i++)); do\n        word=\"${{COMP_WORDS[i]}}\"\n        \
         case \" {all} \" in *\" $word \"*) command=\"$word\"; break;; esac\n    done\n    \
         case \"$command\" in\n        '') words=\"{all}\";;\n{cases}    esac\n    \
         COMPREPLY=($(compgen -W \"$words {global}\" -- \"$cur\"))\n    \
         case \"$command\" in add) COMPREPLY+=($(compgen -f -- \"$cur\"));; esac\n}}\n\
         complete -o filenames -F _meshctl meshctl\n",
        all = commands(),
        global = flag_words(GLOBAL_FLAGS).join(" "),
    )
}

fn zsh() -> String {
    let quote = |t: &str| t.replace('\'', "'\\''").replace(':', "\\:");
    let mut names = String::new();
    let mut cases = String::new();
    for (name, about) in COMMANDS.iter().map(|c| (c.name, c.about)).chain([IPFS]) {
        names.push_str(&format!("    '{name}:{}'\n", quote(about)));
    }
    for c in COMMANDS {
        let files = if c.name == "add" { "; _files" } else { "" };
        cases.push_str(&format!("    {}) compadd -- {}{files};;\n", c.name, after(c)));
    }
    format!(
        "#compdef meshctl\nlocal -a commands\ncommands=(\n{names})\nlocal word command=\n\
         for word in ${{words[2,CURRENT-1]}}; do\n  if (( ${{commands[(I)$word:*]}} )); then command=$word; break; fi\ndone\n\
         compadd -- {}\nif [[ -z $command ]]; then\n  _describe command commands\nelse\n  case $command in\n{cases}  esac\nfi\n",
        flag_words(GLOBAL_FLAGS).join(" ")
    )
}

fn fish() -> String {
    let quote = |t: &str| t.replace('\\', "\\\\").replace('\'', "\\'");
    let flag = |condition: &str, f: &Flag| {
        let long = f.name.trim_start_matches('-');
        let short = f.short.map_or(String::new(), |s| format!(" -s {}", s.trim_start_matches('-')));
        let value = if f.value.is_some() { " -r" } else { "" };
        format!("complete -c meshctl{condition}{short} -l {long}{value} -d '{}'\n", quote(f.help))
    };
    let mut text = String::from("# fish completion for meshctl\ncomplete -c meshctl -f\n");
    for (name, about) in COMMANDS.iter().map(|c| (c.name, c.about)).chain([IPFS]) {
        text.push_str(&format!(
            "complete -c meshctl -n __fish_use_subcommand -a {name} -d '{}'\n",
            quote(about)
        ));
    }
    text.extend(GLOBAL_FLAGS.iter().map(|f| flag("", f)));
    for c in COMMANDS {
        let condition = format!(" -n '__fish_seen_subcommand_from {}'", c.name);
        text.extend(c.flags.iter().map(|f| flag(&condition, f)));
        if !c.words.is_empty() {
            text.push_str(&format!("complete -c meshctl{condition} -a '{}'\n", c.words.join(" ")));
        }
        if c.name == "add" {
            text.push_str(&format!("complete -c meshctl{condition} -F\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_flag_is_in_every_shell() {
        for shell in ["bash", "zsh", "fish"] {
            let text = completions(shell).unwrap();
            for c in COMMANDS {
                assert!(text.contains(c.name), "{shell} {}", c.name);
                for f in c.flags {
                    assert!(text.contains(f.name.trim_start_matches('-')), "{shell} {}", f.name);
                }
            }
        }
        assert!(completions("tcsh").is_none());
    }
}
