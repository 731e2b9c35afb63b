//! Segments as files: `<number, eight hexadecimal digits>.seg` in one folder.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mesh_sys::file::start_writeback;
use store_core::{Disk, DiskError};

/// More open files than this are closed again.
const MAX_OPEN: usize = 32;
/// The system is asked to begin with the writing after so many bytes, so that a sync finds most of it done.
const WRITEBACK: u64 = 4 << 20;

/// A folder of segments, locked against a second process.
#[derive(Debug)]
pub(crate) struct FileDisk {
    folder: PathBuf,
    open: BTreeMap<u32, File>,
    /// What was written since the system was last asked to write: segment, from, to.
    unwritten: Option<(u32, u64, u64)>,
    /// A name was made or removed since the folder was synced.
    names_changed: bool,
    _lock: File,
}

impl FileDisk {
    /// Opens or makes the folder.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join("lock"))?;
        lock.try_lock().map_err(|e| match e {
            fs::TryLockError::WouldBlock => {
                io::Error::new(io::ErrorKind::AddrInUse, "another mesh-store uses this folder; stop it first")
            }
            fs::TryLockError::Error(e) => e,
        })?;
        Ok(Self {
            folder: folder.to_path_buf(),
            open: BTreeMap::new(),
            unwritten: None,
            names_changed: true,
            _lock: lock,
        })
    }

    fn path(&self, segment: u32) -> PathBuf {
        self.folder.join(format!("{segment:08x}.seg"))
    }

    fn file(&mut self, segment: u32) -> Result<&File, DiskError> {
        if !self.open.contains_key(&segment) {
            let file = OpenOptions::new().read(true).write(true).open(self.path(segment)).map_err(error)?;
            self.keep(segment, file);
        }
        self.open.get(&segment).ok_or(DiskError::Failed(0))
    }

    fn keep(&mut self, segment: u32, file: File) {
        if self.open.len() >= MAX_OPEN {
            // synced or not, closing a file loses nothing
            self.open.pop_first();
        }
        self.open.insert(segment, file);
    }
}

fn error(e: io::Error) -> DiskError {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            DiskError::Full
        }
        _ => DiskError::Failed(e.raw_os_error().unwrap_or(0)),
    }
}

impl Disk for FileDisk {
    fn list(&mut self) -> Result<Vec<u32>, DiskError> {
        let number = |entry: fs::DirEntry| {
            let name = entry.file_name();
            let digits = name.to_str()?.strip_suffix(".seg")?;
            if digits.len() == 8 { u32::from_str_radix(digits, 16).ok() } else { None }
        };
        let entries = fs::read_dir(&self.folder).map_err(error)?;
        Ok(entries.filter_map(|entry| entry.ok().and_then(number)).collect())
    }

    fn size(&mut self, segment: u32) -> Result<u64, DiskError> {
        Ok(self.file(segment)?.metadata().map_err(error)?.len())
    }

    fn create(&mut self, segment: u32) -> Result<(), DiskError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(self.path(segment));
        self.keep(segment, file.map_err(error)?);
        self.names_changed = true;
        Ok(())
    }

    fn read(&mut self, segment: u32, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.file(segment)?.read_exact_at(buffer, offset).map_err(error)
    }

    fn write(&mut self, segment: u32, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file(segment)?.write_all_at(bytes, offset).map_err(error)?;
        let end = offset + bytes.len() as u64;
        let from = match self.unwritten {
            Some((same, from, to)) if same == segment && to <= offset => from,
            _ => offset,
        };
        self.unwritten = Some((segment, from, end));
        if end - from >= WRITEBACK {
            // not more than a wish: the sync is what counts
            let _ = start_writeback(self.file(segment)?, from, end - from);
            self.unwritten = Some((segment, end, end));
        }
        Ok(())
    }

    fn truncate(&mut self, segment: u32, size: u64) -> Result<(), DiskError> {
        self.file(segment)?.set_len(size).map_err(error)
    }

    fn sync(&mut self, segment: u32) -> Result<(), DiskError> {
        self.file(segment)?.sync_data().map_err(error)?;
        if self.names_changed {
            File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(error)?;
            self.names_changed = false;
        }
        Ok(())
    }

    fn remove(&mut self, segment: u32) -> Result<(), DiskError> {
        self.open.remove(&segment);
        fs::remove_file(self.path(segment)).map_err(error)?;
        self.names_changed = true;
        Ok(())
    }
}
