//! `support-bundle`: a small tar archive (POSIX ustar) with all that helps to find a fault.

use std::fs::{self, File};
use std::io::{self, IsTerminal};

use crate::cli::{Args, COMMANDS, Context};
use crate::commands::{info, logs};
use crate::failure::Failure;
use crate::out::Out;

/// Commands whose output goes in.
const INCLUDED: &[&str] =
    &["version", "neighbors", "routes", "topology", "counters", "names", "radio", "peers"];
/// Files of the kernel that go in; none holds a secret.
const PROC: &[&str] = &[
    "cmdline",
    "meminfo",
    "mounts",
    "modules",
    "uptime",
    "loadavg",
    "partitions",
    "net/dev",
    "net/if_inet6",
    "net/route",
];
/// At most so much of each file.
const MAX_FILE: usize = 256 * 1024;

pub(crate) fn bundle(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let files = collect(ctx);
    match args.path("--output") {
        Some(path) => {
            let shown = path.display().to_string();
            let file = File::create(path).map_err(|e| Failure::write(&shown, &e))?;
            let mut to = Out::to(Box::new(file));
            write_tar(&files, &mut to)?;
            to.flush()?;
            out.line(&format!("{shown}: {} files; have a look inside before you pass it on", files.len()))
        }
        None if io::stdout().is_terminal() => Err(Failure::Usage(
            "support-bundle writes an archive, which a terminal can't show; use -o FILE or > FILE".into(),
        )),
        None => write_tar(&files, out),
    }
}

fn collect(ctx: &Context) -> Vec<(String, Vec<u8>)> {
    let overview = info::overview(ctx);
    let mut files = vec![
        ("status.txt".to_owned(), overview.to_text().into_bytes()),
        ("status.json".to_owned(), overview.to_json().to_string().into_bytes()),
    ];
    for command in COMMANDS.iter().filter(|c| INCLUDED.contains(&c.name)) {
        files.push((format!("{}.txt", command.name), run(ctx, command.run)));
    }
    let log = logs::fetch(ctx, "", 2000).map_or_else(|f| format!("{f:?}\n"), |lines| lines.join("\n") + "\n");
    files.push(("logs.txt".to_owned(), log.into_bytes()));
    files.push(("config.txt".to_owned(), config(ctx).into_bytes()));
    for name in PROC {
        if let Ok(content) = fs::read(format!("/proc/{name}")) {
            files.push((format!("proc/{}", name.replace('/', "-")), content));
        }
    }
    for (_, content) in &mut files {
        content.truncate(MAX_FILE);
    }
    files
}

type Run = fn(&Context, &Args, &mut Out) -> Result<(), Failure>;

/// What a command prints, or why it can't.
fn run(ctx: &Context, command: Run) -> Vec<u8> {
    let sink = Sink::default();
    let mut out = Out::to(Box::new(sink.clone()));
    let result = command(ctx, &Args::default(), &mut out).and_then(|()| out.flush());
    let mut bytes = sink.0.take();
    if let Err(failure) = result {
        bytes.extend(format!("{failure:?}\n").into_bytes());
    }
    bytes
}

#[derive(Clone, Default)]
struct Sink(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The configuration as understood (secrets don't show) and its problems; never the file itself.
fn config(ctx: &Context) -> String {
    let loaded = mesh_config::load(&ctx.config);
    format!("{:#?}\n{}\n", loaded.config, loaded.problem_lines(&ctx.config).join("\n"))
}

fn write_tar(files: &[(String, Vec<u8>)], out: &mut Out) -> Result<(), Failure> {
    for (name, content) in files {
        out.bytes(&header(&format!("p2pmesh-support/{name}"), content.len()))?;
        out.bytes(content)?;
        out.bytes(&vec![0; content.len().next_multiple_of(512) - content.len()])?;
    }
    out.bytes(&[0; 1024])
}

/// A ustar header (POSIX.1-2017, pax: "ustar Interchange Format") of an ordinary file.
fn header(name: &str, size: usize) -> [u8; 512] {
    let mut block = [0; 512];
    let mut field = |at: usize, text: &str| {
        for (place, byte) in block.iter_mut().skip(at).zip(text.bytes()) {
            *place = byte;
        }
    };
    field(0, name.get(..name.len().min(99)).unwrap_or("file"));
    field(100, "0000644\0");
    field(108, "0000000\0");
    field(116, "0000000\0");
    field(124, &format!("{size:011o}\0"));
    field(136, "00000000000\0");
    field(148, "        ");
    field(156, "0");
    field(257, "ustar\x0000");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    for (place, byte) in block.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
        *place = byte;
    }
    block
}
