//! `mesh-lab cuts`: what power cuts leave of a card. All that a node wrote was recorded (QEMU's `blklogwrites`); it is
//! replayed to many points, and each time the card must boot a slot that is whole, with the node's identity and store.

mod card;
mod data;
mod log;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mesh_lab::graph::Chance;
use mesh_lab::lab::Result;
use mesh_lab::report::say;
use update_core::{SECTOR, Slot};

use card::{Card, Systems};
use data::Data;
use log::{Log, Write};

pub(crate) const USAGE: &str = "usage: mesh-lab cuts --work DIR --system FILE.slot... [--cid CID...] [--bin-dir DIR]
                     (--card FILE --log FILE [--points N] [--data N] [--keep N] [--seed N] | CARD...)

Each card must boot a slot whose every byte is that of a system; its file system must be repairable, its identity
the same as ever, its store open and hold what is named.
  --card FILE   a card as it was when the log began; it is changed
  --log FILE    all that was written since (dm-log-writes; QEMU's blklogwrites)
  --points N    moments at which power is cut (default 300): a third of them tears the sector that is being written, a
                third lets later sectors of the same command arrive before earlier ones
  --data N      so many of them look at the data partition, too (default 50)
  --keep N      so many cards are kept in DIR, one line each: card FILE SLOT VERSION
  CARD...       cards to look at as they are; the same line for each
  --system FILE a slot that may be on the card, as the build wrote it
  --cid CID     content that must be in the store
  --work DIR    for temporary files
  --bin-dir DIR where mesh-store is (default: beside mesh-lab)";

/// See [`USAGE`].
pub(crate) struct Cuts {
    card: Option<PathBuf>,
    log: Option<PathBuf>,
    cards: Vec<PathBuf>,
    systems: Vec<PathBuf>,
    points: usize,
    keep: usize,
    looks: usize,
    seed: u64,
    data: Data,
}

/// How power was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Between,
    Torn,
    Reordered,
}

impl Cuts {
    /// Reads the words after `cuts`.
    pub(crate) fn new(binaries: PathBuf, mut words: impl Iterator<Item = String>) -> Result<Self> {
        let data = Data { work: PathBuf::new(), binaries, identity: None, cids: Vec::new(), checked: 0 };
        let (systems, cards) = (Vec::new(), Vec::new());
        let mut cuts =
            Self { card: None, log: None, cards, systems, points: 300, keep: 0, looks: 50, seed: 1, data };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"));
            let number = |text: String| text.parse().map_err(|_| format!("{text} is no number\n{USAGE}"));
            match word.as_str() {
                "--card" => cuts.card = Some(value()?.into()),
                "--log" => cuts.log = Some(value()?.into()),
                "--work" => cuts.data.work = value()?.into(),
                "--bin-dir" => cuts.data.binaries = value()?.into(),
                "--system" => cuts.systems.push(value()?.into()),
                "--cid" => cuts.data.cids.push(value()?),
                "--points" => cuts.points = number(value()?)?,
                "--keep" => cuts.keep = number(value()?)?,
                "--data" => cuts.looks = number(value()?)?,
                "--seed" => cuts.seed = number(value()?)? as u64,
                w if w.starts_with('-') => return Err(format!("unknown flag {w}\n{USAGE}")),
                _ => cuts.cards.push(word.into()),
            }
        }
        if cuts.data.work.as_os_str().is_empty() || cuts.systems.is_empty() {
            return Err(USAGE.into());
        }
        Ok(cuts)
    }

    /// Looks and tells. True if all cards were good.
    pub(crate) fn run(mut self) -> bool {
        match self.look() {
            Ok(()) => true,
            Err(why) => {
                say(&format!("cuts: {why}"));
                false
            }
        }
    }

    fn look(&mut self) -> Result<()> {
        fs::create_dir_all(&self.data.work).map_err(|e| e.to_string())?;
        let systems = Systems::read(&self.systems)?;
        if let (Some(card), Some(log)) = (self.card.clone(), self.log.clone()) {
            self.replay(&card, &Log::open(&log)?, &systems)?;
        }
        let mut picked = [0; 2];
        for path in &self.cards {
            let good = Card::open(path).and_then(|mut card| {
                let found = card.boots(&systems)?;
                self.data.check(&mut card)?;
                Ok(found)
            });
            let (slot, version) = good.map_err(|e| format!("{}: {e}", path.display()))?;
            say(&format!("card {} {slot} {version}", path.display()));
            count(&mut picked, slot);
        }
        if !self.cards.is_empty() {
            let [a, b] = picked;
            say(&format!("cards: {} as they are, slot A would boot on {a}, slot B on {b}", self.cards.len()));
        }
        Ok(())
    }

    fn replay(&mut self, path: &Path, log: &Log, systems: &Systems) -> Result<()> {
        let mut card = Card::open(path)?;
        let mut rng = Chance::new(self.seed);
        // What the node has before anything happens is what it must have later.
        card.boots(systems)?;
        self.data.check(&mut card)?;
        let points = self.choose(&card, log, &mut rng);
        let (mut done, mut cuts, mut picked) = (0, [0; 3], [0; 2]);
        let (look_every, keep_every) =
            (points.len().div_ceil(self.looks.max(1)), points.len().div_ceil(self.keep.max(1)));
        for (n, &(at, cut)) in points.iter().enumerate() {
            for write in log.writes.get(done..at).unwrap_or_default() {
                card.write(write.sector, &log.data(write)?)?;
            }
            done = at.max(done);
            let before = self.damage(&mut card, log, at, cut, &mut rng)?;
            let look = (n % look_every == 0).then_some(&mut self.data);
            let result = card.boots(systems).and_then(|found| {
                look.map_or(Ok(()), |data| data.check(&mut card))?;
                Ok(found)
            });
            let (slot, version) = result.map_err(|e| {
                let kept = self.data.work.join("failed.img");
                let kept = copy(path, &kept).map_or_else(|e| e, |()| kept.display().to_string());
                format!(
                    "power is cut at write {at} of {} ({cut:?}, seed {}): {e}; the card: {kept}",
                    log.writes.len(),
                    self.seed
                )
            })?;
            count(&mut picked, slot);
            let kind = [Cut::Between, Cut::Torn, Cut::Reordered].iter().position(|c| *c == cut).unwrap_or(0);
            if let Some(n) = cuts.get_mut(kind) {
                *n += 1;
            }
            if self.keep > 0 && n % keep_every == keep_every / 2 {
                let kept = self.data.work.join(format!("kept-{at}.img"));
                copy(path, &kept)?;
                say(&format!("card {} {slot} {version}", kept.display()));
            }
            for (sector, bytes) in before.iter().rev() {
                card.write(*sector, bytes)?;
            }
        }
        let ([between, torn, reordered], [a, b]) = (cuts, picked);
        say(&format!(
            "cuts: {} at {} writes ({} flushes): {between} between two sectors, {torn} in the midst of one, {reordered} with \
             sectors of one command in another order; slot A would boot after {a}, slot B after {b}; data partition \
             looked at {} times",
            points.len(),
            log.writes.len(),
            log.flushes,
            self.data.checked
        ));
        Ok(())
    }

    /// When power is cut and how, in order. Each write that decides what boots is there in all ways, as far as `points`
    /// goes; the rest is anywhere.
    fn choose(&self, card: &Card, log: &Log, rng: &mut Chance) -> Vec<(usize, Cut)> {
        const ALL: [Cut; 3] = [Cut::Between, Cut::Torn, Cut::Reordered];
        let mut points = Vec::new();
        for (at, write) in log.writes.iter().enumerate() {
            if card.decides(write.sector) && points.len() + 8 <= self.points * 2 / 3 {
                points.extend([(at, Cut::Between), (at, Cut::Torn), (at, Cut::Torn), (at + 1, Cut::Between)]);
            }
        }
        while points.len() < self.points {
            let at = rng.below(log.writes.len() as u64 + 1) as usize;
            points.push((at, ALL.get(points.len() % ALL.len()).copied().unwrap_or(Cut::Between)));
        }
        points.sort_by_key(|(at, _)| *at);
        points
    }

    /// What the cut does to the sector that is being written, or to those of its command. Returns what was there before.
    fn damage(
        &self,
        card: &mut Card,
        log: &Log,
        at: usize,
        cut: Cut,
        rng: &mut Chance,
    ) -> Result<Vec<(u64, [u8; SECTOR])>> {
        let command = log.command(at)?;
        let hit: Vec<&Write> = match cut {
            Cut::Between => Vec::new(),
            Cut::Torn => command.first().into_iter().collect(),
            Cut::Reordered => command.iter().filter(|_| rng.below(2) == 0).collect(),
        };
        let mut before = Vec::new();
        for write in hit {
            let old = card.sector(write.sector)?;
            let mut new = log.data(write)?;
            if cut == Cut::Torn {
                let from = rng.below(SECTOR as u64) as usize;
                let noise = rng.below(2) == 0;
                for (byte, was) in new.iter_mut().zip(old).skip(from) {
                    *byte = if noise { rng.below(256) as u8 } else { was };
                }
            }
            before.push((write.sector, old));
            card.write(write.sector, &new)?;
        }
        Ok(before)
    }
}

fn count(picked: &mut [usize; 2], slot: Slot) {
    if let Some(n) = picked.get_mut(usize::from(slot == Slot::B)) {
        *n += 1;
    }
}

/// A sparse copy.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("--sparse=always").arg(from).arg(to).status();
    if status.is_ok_and(|s| s.success()) {
        Ok(())
    } else {
        Err(format!("{} can't be copied", from.display()))
    }
}
