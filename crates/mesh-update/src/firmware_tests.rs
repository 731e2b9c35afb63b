//! The exchange on a model of a FAT that loses power: entries that lead to chains, which a removal frees.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;

use super::*;

const GARBAGE: &[u8] = b"clusters that were freed";

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
    fn coin(&mut self) -> bool {
        self.below(2) == 1
    }
}

struct Model {
    /// Path to chain.
    entries: BTreeMap<String, usize>,
    chains: Vec<Vec<u8>>,
    /// The power goes in this operation, counted from 1.
    cut: Option<u32>,
    operations: u32,
    random: Random,
}

impl Model {
    fn new(files: &[(&str, &[u8])], seed: u64) -> Self {
        let mut model = Self {
            entries: BTreeMap::new(),
            chains: Vec::new(),
            cut: None,
            operations: 0,
            random: Random(seed),
        };
        for (name, bytes) in files {
            model.add(name, bytes);
        }
        model
    }

    fn add(&mut self, path: &str, bytes: &[u8]) {
        self.chains.push(bytes.to_vec());
        self.entries.insert(path.into(), self.chains.len() - 1);
    }

    fn content(&self, path: &str) -> Option<&[u8]> {
        self.entries.get(path).map(|c| self.chains[*c].as_slice())
    }

    /// `Ok(true)`: the power goes in this one.
    fn power(&mut self) -> io::Result<bool> {
        self.operations += 1;
        match self.cut {
            Some(at) if self.operations > at => Err(io::Error::other("the power is gone")),
            Some(at) => Ok(self.operations == at),
            None => Ok(false),
        }
    }

    fn gone<T>() -> io::Result<T> {
        Err(io::Error::other("the power is gone"))
    }

    fn back(&mut self) {
        (self.cut, self.operations) = (None, 0);
    }
}

impl Fat for Model {
    fn list(&mut self, folder: &str) -> io::Result<Vec<String>> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let mut names: Vec<String> = self
            .entries
            .keys()
            .filter_map(|p| p.strip_prefix(&prefix))
            .map(|p| p.split('/').next().unwrap().to_owned())
            .collect();
        names.dedup();
        Ok(names)
    }
    fn read(&mut self, path: &str) -> io::Result<Vec<u8>> {
        self.content(path).map(<[u8]>::to_vec).ok_or(ErrorKind::NotFound.into())
    }
    fn create(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        assert!(!self.entries.contains_key(path), "{path} is there already");
        if self.power()? {
            // Nothing, or a name with some of it.
            if self.random.coin() {
                let part = self.random.below(bytes.len() as u64 + 1) as usize;
                self.add(path, &bytes[..part]);
            }
            return Self::gone();
        }
        self.add(path, bytes);
        Ok(())
    }
    fn overwrite(&mut self, path: &str, sector: &[u8; SECTOR]) -> io::Result<()> {
        let cut = self.power()?;
        if !cut || self.random.coin() {
            match self.entries.get(path) {
                Some(chain) => self.chains[*chain] = sector.to_vec(),
                None => self.add(path, sector),
            }
        }
        if cut { Self::gone() } else { Ok(()) }
    }
    fn exchange(&mut self, one: &str, other: &str) -> io::Result<()> {
        let (a, b) = (self.entries[one], self.entries[other]);
        let cut = self.power()?;
        let (first, second) = if cut { (self.random.coin(), self.random.coin()) } else { (true, true) };
        if first {
            self.entries.insert(one.into(), b);
        }
        if second {
            self.entries.insert(other.into(), a);
        }
        if cut { Self::gone() } else { Ok(()) }
    }
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        assert!(!self.entries.contains_key(to));
        let chain = self.entries[from];
        let cut = self.power()?;
        if !cut || self.random.coin() {
            self.entries.insert(to.into(), chain);
        }
        if !cut || self.random.coin() {
            self.entries.remove(from);
        }
        if cut { Self::gone() } else { Ok(()) }
    }
    fn remove(&mut self, folder: &str) -> io::Result<()> {
        let cut = self.power()?;
        let names = in_order_of_removal(self.list(folder)?);
        let last = if cut { self.random.below(names.len() as u64 + 1) as usize } else { names.len() };
        for name in &names[..last] {
            let chain = self.entries.remove(&format!("{folder}/{name}")).unwrap();
            // What the next name freed may not be on the medium yet.
            if !cut || self.random.coin() {
                self.chains[chain] = GARBAGE.to_vec();
            }
        }
        if cut { Self::gone() } else { Ok(()) }
    }
}

const OLD_FILES: [(&str, &[u8]); 7] = [
    ("bootcode.bin", b"bootcode 1"),
    ("start.elf", b"start 1"),
    ("fixup.dat", b"fixup 1"),
    ("u-boot.bin", b"u-boot 1"),
    ("config.txt", b"same"),
    ("boot.scr", b"script 1"),
    ("p2pmesh.toml", b"hostname"),
];

fn wanted() -> Wanted {
    let file = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    Wanted {
        release: 2,
        version: "2.0".into(),
        files: vec![
            file("new.dtb", b"tree 2"),
            file("boot.scr", b"script 2, longer"),
            file("u-boot.bin", b"u-boot 2"),
            file("config.txt", b"same"),
            file("start.elf", b"start 2"),
            file("fixup.dat", b"fixup 2"),
            file("bootcode.bin", b"bootcode 2"),
        ],
    }
}

/// Whatever boots is whole.
fn whole(model: &Model, what: &str) {
    for (name, old) in OLD_FILES {
        let new = wanted().files.into_iter().find(|(n, _)| n == name).map(|(_, b)| b);
        let is = model.content(name);
        assert!(is == Some(old) || is == new.as_deref(), "{what}: {name} is {is:?}");
    }
    assert_eq!(model.content("p2pmesh.toml"), Some(b"hostname".as_slice()), "{what}");
}

fn all_new(model: &Model, what: &str) {
    for (name, bytes) in wanted().files {
        assert_eq!(model.content(&name), Some(bytes.as_slice()), "{what}: {name}");
    }
}

fn all_old(model: &Model, what: &str) {
    for (name, bytes) in OLD_FILES {
        assert_eq!(model.content(name), Some(bytes), "{what}: {name}");
    }
}

#[test]
fn forward_and_back() {
    let mut fat = Model::new(&OLD_FILES, 1);
    let text = exchange(&mut fat, &wanted(), "boot-1", true).unwrap();
    assert!(text.contains("boot firmware 2.0 (release 2) is in place, 6 files were exchanged"), "{text}");
    all_new(&fat, "forward");
    assert_eq!(fat.list("").unwrap().iter().filter(|n| n.starts_with(NEW)).count(), 0);
    assert!(exchange(&mut fat, &wanted(), "boot-1", true).unwrap().contains("already"));
    // Another one before the node has started with this: the copy is still what it started with.
    let mut third = wanted();
    (third.release, third.files[1].1) = (3, b"script 3".to_vec());
    exchange(&mut fat, &third, "boot-1", true).unwrap();
    assert_eq!(fat.content("firmware.old/boot.scr"), Some(b"script 1".as_slice()));
    // After a start with it, it is what is kept.
    (third.release, third.files[1].1) = (4, b"script 4".to_vec());
    exchange(&mut fat, &third, "boot-2", true).unwrap();
    assert_eq!(fat.content("firmware.old/boot.scr"), Some(b"script 3".as_slice()));
    assert!(restore(&mut fat, "boot-2").unwrap().contains("2.0 (release 3)"));
    assert_eq!(fat.content("boot.scr"), Some(b"script 3".as_slice()));
    let mut fresh = Model::new(&OLD_FILES, 1);
    assert!(restore(&mut fresh, "boot-1").unwrap_err().contains("no whole copy"));
}

#[test]
fn power_cuts_at_every_step_leave_whole_files_and_the_copy() {
    let mut cuts = 0;
    for at in 1..200 {
        let mut ended = 0;
        for seed in 0..64 {
            let mut fat = Model::new(&OLD_FILES, seed * 1000 + u64::from(at));
            fat.cut = Some(at);
            ended += u32::from(exchange(&mut fat, &wanted(), "boot-1", true).is_ok());
            fat.back();
            let what = format!("cut {at}, seed {seed}");
            whole(&fat, &what);
            cuts += 1;
            // Half of them go on, the others go back.
            if seed % 2 == 0 {
                exchange(&mut fat, &wanted(), "boot-2", true).unwrap();
                all_new(&fat, &what);
            }
            match restore(&mut fat, "boot-3") {
                Ok(_) => all_old(&fat, &what),
                // The copy was cut off, and then nothing was exchanged yet.
                Err(e) => {
                    assert!(e.contains("no whole copy") && seed % 2 == 1, "{what}: {e}");
                    all_old(&fat, &what);
                }
            }
        }
        if ended == 64 {
            assert!(at > 20, "only {at} operations");
            eprintln!("{cuts} power cuts");
            return;
        }
    }
    panic!("it never comes to an end");
}

#[test]
fn cut_after_cut_never_leaves_half_a_file() {
    for seed in 0..2_000 {
        let mut fat = Model::new(&OLD_FILES, seed);
        for attempt in 0..8 {
            fat.back();
            fat.cut = Some(1 + fat.random.below(30) as u32);
            let boot = format!("boot-{attempt}");
            let _ = if fat.random.below(4) == 0 {
                restore(&mut fat, &boot)
            } else {
                exchange(&mut fat, &wanted(), &boot, true)
            };
            whole(&fat, &format!("seed {seed}, attempt {attempt}"));
        }
    }
}

#[test]
fn a_state_is_read_as_it_was_written() {
    let state = State { begun: true, release: 9, boot: "b".into(), version: "1.0+g1".into() };
    assert_eq!(State::parse(&state.sector()), Some(state));
    for bad in ["", "done", "done x b v", "done 1 b", "maybe 1 b v", "\u{0}"] {
        assert_eq!(State::parse(bad.as_bytes()), None, "{bad:?}");
    }
}
