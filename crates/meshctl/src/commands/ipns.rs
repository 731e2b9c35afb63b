//! `ipns put`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use mesh_ipc::store::{StoreRequest, StoreResponse};

use crate::cli::{Args, Context};
use crate::client;
use crate::failure::Failure;
use crate::json::object;
use crate::out::Out;

/// A little more than the largest record: the store says what is wrong with a longer one.
const MAX_FILE: u64 = 10 * 1024 + 1;

pub(crate) fn ipns(ctx: &Context, args: &Args, out: &mut Out) -> Result<(), Failure> {
    let path = Path::new(args.operands.get(1).map_or("".as_ref(), |o| o.as_os_str()));
    let mut record = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_end(&mut record))
        .map_err(|e| Failure::Failed(format!("{}: {e}", path.display())))?;
    let name = match args.text("--name") {
        Some(name) => name.to_owned(),
        None => name_of(path)?,
    };
    let mut store = client::store(&ctx.run_dir)?;
    let StoreResponse::Done = store.request(StoreRequest::IpnsPut { name: name.clone(), record })? else {
        return Err(store.odd());
    };
    if ctx.json {
        out.line(&object! { "name" => &name }.to_string())
    } else {
        out.line(&format!("/ipns/{name}"))
    }
}

/// `k51…_v1-v2.ipns-record` is a record of `k51…`.
fn name_of(path: &Path) -> Result<String, Failure> {
    let stem = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    let name: String = stem.chars().take_while(char::is_ascii_alphanumeric).collect();
    // the shortest names have 46 characters
    if name.len() < 46 {
        return Err(Failure::Failed(
            "which name? say it with --name NAME, or call the file NAME.ipns-record".into(),
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_tell_their_names() {
        let name = "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8";
        for file in [format!("/x/{name}.ipns-record"), format!("{name}_v1-v2.ipns-record"), name.to_owned()] {
            assert_eq!(name_of(Path::new(&file)).unwrap(), name);
        }
        assert!(name_of(Path::new("record")).is_err());
    }
}
