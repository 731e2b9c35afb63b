//! Boot firmware and U-Boot in one signed file.

use std::fs;
use std::io::{self, Seek, SeekFrom, Write};

use mesh_sys::service::print;
use update_core::bundle::{Signature, signed_message};
use update_core::firmware::{Firmware, MAGIC, head, rank, split, to_sign};

use crate::keys::hex;
use crate::options::Options;
use crate::{at, replace};

/// Makes one of the files in a folder (`build/deploy/firmware`).
pub(crate) fn make(options: &Options) -> Result<(), String> {
    let out = options.output.as_deref().ok_or("firmware needs -o FILE")?;
    let release = options.release.ok_or("firmware needs --release N")?;
    let folder = &options.file;
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if rank(&name).is_none() {
            return Err(format!("{}: is no part of the boot firmware", path.display()));
        }
        files.push((name, fs::read(&path).map_err(at(&path))?));
    }
    files.sort_by_key(|(name, _)| rank(name));
    let version = options.named.clone().unwrap_or_else(|| release.to_string());
    let manifest = Firmware::of(release, &version, &options.boards, &files).encode();
    // What nodes would refuse is found here.
    Firmware::parse(&manifest).map_err(|e| e.to_string())?;
    replace(out, |file| {
        file.write_all(&head(&manifest, &[]))?;
        files.iter().try_for_each(|(_, bytes)| file.write_all(bytes))
    })?;
    print(&format!("{}: {} files; not signed yet\n", out.display(), files.len()));
    Ok(())
}

/// True for the beginning of such a file.
pub(crate) fn is_one(head: &[u8]) -> bool {
    head.starts_with(&MAGIC)
}

/// The message to sign, and the signatures that are there.
pub(crate) fn signatures(beginning: &[u8]) -> Result<(Vec<u8>, Vec<Signature>), String> {
    let (manifest, signatures, _) = split(beginning).map_err(|e| e.to_string())?;
    Firmware::parse(manifest).map_err(|e| e.to_string())?;
    Ok((signed_message(&to_sign(manifest)), signatures))
}

/// Puts these signatures in place of those that are there.
pub(crate) fn put(options: &Options, beginning: &[u8], signatures: &[Signature]) -> Result<(), String> {
    let (manifest, _, skip) = split(beginning).map_err(|e| e.to_string())?;
    let mut old = fs::File::open(&options.file).map_err(at(&options.file))?;
    old.seek(SeekFrom::Start(skip as u64)).map_err(at(&options.file))?;
    replace(&options.file, |file| {
        file.write_all(&head(manifest, signatures))?;
        io::copy(&mut old, file).map(drop)
    })
}

/// What is signed, for people.
pub(crate) fn text(beginning: &[u8]) -> Result<String, String> {
    let (manifest, ..) = split(beginning).map_err(|e| e.to_string())?;
    let firmware = Firmware::parse(manifest).map_err(|e| e.to_string())?;
    let (version, release, boards) = (&firmware.version, firmware.release, firmware.boards.join(" "));
    let mut text = format!("firmware   {version}\nrelease    {release}\nboards     {boards}\n");
    for file in &firmware.files {
        text.push_str(&format!("file       {} {} bytes {}\n", file.name, file.size, hex(&file.sha256)));
    }
    Ok(text)
}
