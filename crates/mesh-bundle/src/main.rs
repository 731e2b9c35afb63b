//! `mesh-bundle`: makes, signs and examines update bundles (level 5, not part of the image).
//!
//! The format is `update-core`'s; here are files, keys and the command line. A key file holds an Ed25519 seed as 64
//! hexadecimal digits and a newline, readable for its owner alone; beside it lies `<file>.pub` with the public key, which
//! belongs into `update.keys`.

mod firmware;
mod keys;
mod options;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use content_id::{Cid, Codec, Version};
use mesh_sys::service::{complain, print};
use update_core::bundle::{MAX_SIGNATURES, Manifest, Signature, signed_message};
use update_core::make::{Choices, make, signed_part, with_signatures};
use update_core::{Install, InstallConfig, Medium, Next, Partition, Policy, Slot, test_keys};

use crate::keys::{Key, hex};
use crate::options::Options;

const HELP: &str = "\
mesh-bundle: makes, signs and examines update bundles

usage: mesh-bundle make SLOT -o BUNDLE --board NAME... [--release N] [--floor N] [--needs N] [--except N] [--manifest FILE]
       mesh-bundle firmware FOLDER -o FILE --board NAME... --release N [--version TEXT]
       mesh-bundle sign BUNDLE --key FILE...
       mesh-bundle show BUNDLE
       mesh-bundle verify BUNDLE --public HEX... [--threshold N]
       mesh-bundle keygen FILE [--test N]

make    a bundle without signatures from a slot (build/deploy/*.slot). --board: an entry of the device tree's compatible.
        --release: its number (default: the slot's); --floor: nothing older is installed once this one has proved good
        (default: this release); --needs: the release that must run; --except: nodes whose floor is N or lower take it
        though it is older; --manifest: the build's manifest, whose CID is signed along.
firmware  boot firmware and U-Boot for the FAT partition, without signatures (build/deploy/firmware); sign and show take it.
sign    adds signatures; those that are there stay.
show    what is signed, and by whom; checks that all signatures fit.
verify  checks all of it, as a node with these keys does.
keygen  a new key: FILE (secret) and FILE.pub. --test: one of the test keys 1 to 3, which everybody knows.
";

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(text) => {
            complain(&format!("mesh-bundle: {text}; see mesh-bundle --help"));
            return ExitCode::from(2);
        }
    };
    let result = match options.verb.as_str() {
        "help" => {
            print(HELP);
            Ok(())
        }
        "make" => make_bundle(&options),
        "firmware" => firmware::make(&options),
        "sign" => sign(&options),
        "show" => show(&options),
        "verify" => verify(&options),
        _ => keygen(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            complain(&format!("mesh-bundle: {text}"));
            ExitCode::FAILURE
        }
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> String {
    let path = path.display().to_string();
    move |e| format!("{path}: {e}")
}

fn make_bundle(options: &Options) -> Result<(), String> {
    let out = options.output.as_deref().ok_or("make needs -o BUNDLE")?;
    let slot = fs::read(&options.file).map_err(at(&options.file))?;
    let mut choices = Choices {
        release: options.release,
        floor: options.floor,
        needs: options.needs,
        excepts: options.excepts,
        boards: options.boards.clone(),
        build: String::new(),
    };
    if let Some(path) = &options.manifest {
        let bytes = fs::read(path).map_err(at(path))?;
        choices.build = Cid::of(Version::V1, Codec::RAW, &bytes).to_string();
    }
    let bundle = make(&slot, &choices).map_err(|e| format!("{}: {e}", options.file.display()))?;
    replace(out, |file| file.write_all(&bundle))?;
    let ratio = bundle.len() as f64 / slot.len() as f64;
    print(&format!(
        "{}: {} bytes, {:.1} % of the slot; not signed yet\n",
        out.display(),
        bundle.len(),
        ratio * 100.0
    ));
    Ok(())
}

/// Writes beside and renames, so that a bundle is whole or not there.
fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), String> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let beside: PathBuf = path.with_file_name(name);
    let result = (|| {
        let mut file = File::create(&beside)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if result.is_err() {
        let _ = fs::remove_file(&beside);
    }
    result.map_err(at(path))
}

/// The beginning of a bundle: as much as manifest and signatures can take.
fn head(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(at(path))?;
    file.take(16 * 1024).read_to_end(&mut bytes).map_err(at(path))?;
    Ok(bytes)
}

fn fits(message: &[u8], s: &Signature) -> bool {
    mesh_sys::identity::verify(&s.key, message, &s.signature)
}

/// What is signed of a bundle or a firmware file, and by whom.
fn message(head: &[u8]) -> Result<(Vec<u8>, Vec<Signature>), String> {
    if firmware::is_one(head) {
        return firmware::signatures(head);
    }
    let (manifest, signatures) = signed_part(head).map_err(|e| e.to_string())?;
    Manifest::parse(manifest).map_err(|e| e.to_string())?;
    Ok((signed_message(manifest), signatures))
}

fn sign(options: &Options) -> Result<(), String> {
    if options.keys.is_empty() {
        return Err("sign needs --key FILE".into());
    }
    let path = &options.file;
    let head = head(path)?;
    let (message, mut signatures) = message(&head).map_err(|e| format!("{}: {e}", path.display()))?;
    for file in &options.keys {
        let key = Key::load(file)?;
        let public = key.public();
        if test_keys().contains(&public) {
            complain(&format!(
                "mesh-bundle: WARNING: {} is a TEST KEY. Everybody has its secret: a node that accepts it can be changed \
                 by anybody. Never put it into the update.keys of a node that matters.",
                file.display()
            ));
        }
        signatures.retain(|s| s.key != public);
        signatures.push(Signature { key: public, signature: key.sign(&message) });
    }
    if signatures.len() > MAX_SIGNATURES {
        return Err(format!("a bundle has at most {MAX_SIGNATURES} signatures"));
    }
    if firmware::is_one(&head) {
        firmware::put(options, &head, &signatures)?;
        return show(options);
    }
    let (new, skip) = with_signatures(&head, &signatures).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut old = File::open(path).map_err(at(path))?;
    old.seek(SeekFrom::Start(skip as u64)).map_err(at(path))?;
    replace(path, |file| {
        file.write_all(&new)?;
        io::copy(&mut old, file).map(drop)
    })?;
    show(options)
}

fn show(options: &Options) -> Result<(), String> {
    let bad = |e: String| format!("{}: {e}", options.file.display());
    let head = head(&options.file)?;
    let (message, signatures) = message(&head).map_err(bad)?;
    let mut text =
        if firmware::is_one(&head) { firmware::text(&head) } else { contents(&head) }.map_err(bad)?;
    // What the holders of keys compare before they sign.
    text.push_str(&format!("manifest   {}\n", hex(message.get(24..).unwrap_or_default())));
    for s in &signatures {
        let test = if test_keys().contains(&s.key) { " (TEST KEY)" } else { "" };
        let verdict = if fits(&message, s) { "good" } else { "WRONG" };
        text.push_str(&format!("signature  {} {verdict}{test}\n", hex(&s.key)));
    }
    print(&text);
    if signatures.iter().all(|s| fits(&message, s)) {
        Ok(())
    } else {
        Err(bad("a signature does not fit".into()))
    }
}

/// What a bundle's manifest says, for people.
fn contents(head: &[u8]) -> Result<String, String> {
    let (bytes, _) = signed_part(head).map_err(|e| e.to_string())?;
    let manifest = Manifest::parse(bytes).map_err(|e| e.to_string())?;
    let header = manifest.slot_header().map_err(|e| e.to_string())?;
    let or_none = |n: u64| if n == 0 { "none".to_owned() } else { n.to_string() };
    let mut text = format!(
        "version    {}\nrelease    {}\nfloor      {}\nneeds      {}\nexcepts    {}\nboards     {}\nbuild      {}\n",
        header.version,
        header.release,
        or_none(header.floor),
        or_none(manifest.needs),
        or_none(manifest.excepts),
        manifest.boards.join(" "),
        if manifest.build.is_empty() { "unknown" } else { &manifest.build },
    );
    for part in &manifest.parts {
        let (name, size, chunks) = (part.kind.name(), part.size, part.chunks);
        text.push_str(&format!("part       {name}: {size} bytes, {chunks} chunks\n"));
    }
    Ok(text)
}

/// A card without slots: nothing is written when a bundle is only checked.
struct NoCard;

impl Medium for NoCard {
    type Error = io::Error;
    fn read(&mut self, _: u64, bytes: &mut [u8]) -> io::Result<()> {
        bytes.fill(0);
        Ok(())
    }
    fn write(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn verify(options: &Options) -> Result<(), String> {
    let mut file = File::open(&options.file).map_err(at(&options.file))?;
    let total = file.seek(SeekFrom::End(0)).map_err(at(&options.file))?;
    let head = head(&options.file)?;
    let boards =
        signed_part(&head).ok().and_then(|(m, _)| Some(Manifest::parse(m).ok()?.boards)).unwrap_or_default();
    let policy = Policy {
        keys: options.public.clone(),
        threshold: options.threshold,
        boards,
        running: u64::MAX,
        floor: 0,
        slot: 0,
    };
    let slot = Partition { start: 0, sectors: u32::MAX };
    let config = InstallConfig {
        policy,
        running: Slot::A,
        partitions: [slot, slot],
        total: Some(total),
        check_only: true,
        reuse: false,
        only: None,
    };
    let mut install = Install::new(config);
    let bad = |e: String| format!("{}: {e}", options.file.display());
    loop {
        match install.next() {
            Next::Done => break,
            Next::Work => install.work(&mut NoCard).map_err(|e| bad(e.to_string()))?,
            Next::Want { offset, len } => {
                let mut bytes = Vec::with_capacity(len);
                file.seek(SeekFrom::Start(offset)).map_err(at(&options.file))?;
                (&mut file).take(len as u64).read_to_end(&mut bytes).map_err(at(&options.file))?;
                install.feed(&mut NoCard, &bytes).map_err(|e| bad(e.to_string()))?;
            }
        }
    }
    print(&format!("{}: good: version {}\n", options.file.display(), install.header().version));
    Ok(())
}

fn keygen(options: &Options) -> Result<(), String> {
    let key = match options.test {
        Some(number) => Key::test(number),
        None => Key::new().map_err(|e| format!("no random numbers: {e}"))?,
    };
    key.store(&options.file)?;
    if options.test.is_some() {
        complain("mesh-bundle: WARNING: this is a TEST KEY: everybody has its secret");
    }
    print(&format!("{}\n", hex(&key.public())));
    Ok(())
}
