//! `factory-reset`.

use std::io::{self, BufRead, IsTerminal};
use std::path::Path;

use mesh_ipc::supervisor::{SupervisorRequest, SupervisorResponse};
use mesh_sys::{entropy, file, mount, process};

use crate::cli::{Args, Context};
use crate::client::ask;
use crate::failure::Failure;
use crate::out::Out;

/// The file on the FAT partition that asks for it (mesh-supervisor's `setup/reset.rs`).
const NAME: &str = "factory-reset";
const WARNING: &str = "This removes the node's identity, all content, names, pins and logs. It starts again as a new \
                       node, with new addresses. What stays: the systems in both slots, and p2pmesh.toml on the card.";

pub(crate) fn factory_reset(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let folder = ctx.config.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !process::is_root() {
        return Err(Failure::new("only root may do that; log in at the console"));
    }
    if !args.has("--yes") {
        confirm(out)?;
    }
    let path = folder.join(NAME);
    let bad = |e: io::Error| {
        Failure::new(format!(
            "{}: {e}; an empty file of that name, made on a computer, does the same",
            path.display()
        ))
    };
    let number = entropy::seed().map_err(bad)?;
    mount::while_writable(folder, || file::write_atomic(&path, format!("{number:016x}\n").as_bytes(), 0o640))
        .map_err(bad)?;
    let asked = ask::<SupervisorRequest, SupervisorResponse>(
        &ctx.run_dir,
        "mesh-supervisor",
        SupervisorRequest::Reboot,
    );
    match asked {
        Ok(_) => out.line("the node starts again and is reset then"),
        Err(Failure::Failed(why)) => Err(Failure::new(format!(
            "the node is reset at its next start (remove {} if it shall not), but it does not start again by itself: {why}",
            path.display()
        ))),
        Err(other) => Err(other),
    }
}

/// Asks the person at the terminal.
fn confirm(out: &mut Out) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage("factory-reset asks first; where nobody can answer, say --yes".into()));
    }
    out.line(WARNING)?;
    out.text("Type yes to go on: ")?;
    out.flush()?;
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match read {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        Ok(_) => Err(Failure::new("nothing was changed")),
        Err(e) => Err(Failure::new(format!("the answer can't be read: {e}"))),
    }
}
