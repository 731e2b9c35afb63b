//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use mesh_sys::identity;

/// What it says.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) verb: String,
    pub(crate) file: PathBuf,
    pub(crate) output: Option<PathBuf>,
    pub(crate) manifest: Option<PathBuf>,
    pub(crate) keys: Vec<PathBuf>,
    pub(crate) public: Vec<[u8; 32]>,
    pub(crate) threshold: Option<usize>,
    pub(crate) release: Option<u64>,
    pub(crate) floor: Option<u64>,
    pub(crate) needs: u64,
    pub(crate) excepts: u64,
    pub(crate) boards: Vec<String>,
    pub(crate) test: Option<u8>,
    /// `--version`.
    pub(crate) named: Option<String>,
}

const VERBS: &[&str] = &["make", "firmware", "sign", "show", "verify", "keygen"];

impl Options {
    /// Reads the words behind the program's name.
    pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut words = words.peekable();
        let mut files = Vec::new();
        while let Some(word) = words.next() {
            let name = word.to_string_lossy().into_owned();
            if name == "--help" || name == "-h" || name == "help" {
                return Ok(Self { verb: "help".into(), ..Self::default() });
            }
            if !name.starts_with('-') {
                match options.verb.as_str() {
                    "" => options.verb = name,
                    _ => files.push(PathBuf::from(word)),
                }
                continue;
            }
            // A flag takes one value; these take several.
            let many = matches!(name.as_str(), "--board" | "--key" | "--public");
            let mut count = 0;
            while let Some(value) =
                words.next_if(|w| (count == 0 || many) && !w.as_encoded_bytes().starts_with(b"-"))
            {
                options.set(&name, value)?;
                count += 1;
            }
            if count == 0 {
                return Err(format!("{name} needs a value"));
            }
        }
        if !VERBS.contains(&options.verb.as_str()) {
            return Err(format!("there is no verb {:?}", options.verb));
        }
        match <[PathBuf; 1]>::try_from(files) {
            Ok([file]) => options.file = file,
            Err(_) => return Err(format!("{} needs one file", options.verb)),
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: OsString) -> Result<(), String> {
        let text = value.to_string_lossy().into_owned();
        let number = || text.parse::<u64>().map_err(|_| format!("{name} needs a number, not {text:?}"));
        match name {
            "-o" => self.output = Some(value.into()),
            "--manifest" => self.manifest = Some(value.into()),
            "--key" => self.keys.push(value.into()),
            "--version" => self.named = Some(text),
            "--board" => self.boards.push(text),
            "--public" => self.public.push(
                identity::parse(text.as_bytes())
                    .ok_or("--public needs a public key, 64 hexadecimal digits")?,
            ),
            "--threshold" => self.threshold = Some(number()? as usize),
            "--release" => self.release = Some(number()?),
            "--floor" => self.floor = Some(number()?),
            "--needs" => self.needs = number()?,
            "--except" => self.excepts = number()?,
            "--test" => match text.parse() {
                Ok(n @ 1..=3) => self.test = Some(n),
                _ => return Err("--test needs 1, 2 or 3".into()),
            },
            _ => return Err(format!("there is no flag {name}")),
        }
        Ok(())
    }
}
