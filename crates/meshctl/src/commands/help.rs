//! `help`.

use crate::cli::{Args, Context, completions, find, help as text, man};
use crate::failure::Failure;
use crate::out::Out;

pub(crate) fn help(_: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    if args.has("--man") {
        return out.text(&man());
    }
    if let Some(shell) = args.text("--completions") {
        let script = completions(shell);
        let unknown =
            || Failure::Usage(format!("there are completions for bash, zsh and fish, not for {shell:?}"));
        return out.text(&script.ok_or_else(unknown)?);
    }
    match args.operand(0)? {
        "" => out.text(&text(None)),
        name => {
            let unknown = || Failure::Usage(format!("there is no command {name:?}; see meshctl --help"));
            out.text(&text(Some(find(name).ok_or_else(unknown)?)))
        }
    }
}
