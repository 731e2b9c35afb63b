//! What is announced beside the name: the node's own services, and those that people describe in files. Files and
//! configuration are followed while the service runs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use mesh_config::{Workshop, workshop};
use names::Service;

/// At most so many entries of the folder are looked at.
const MAX_ENTRIES: usize = 512;
/// The ports that `workshop = "manual"` leaves to people; what they put there they can describe in a file.
const WEB_PORTS: [u16; 2] = [80, 8080];

/// A file as far as it tells whether it is still the same.
type Stamp = (OsString, Option<SystemTime>, u64);

/// The services, and where they come from.
#[derive(Debug)]
pub(crate) struct Announced {
    folder: PathBuf,
    config: PathBuf,
    last_good: PathBuf,
    /// What was said while the node runs is there.
    run_dir: PathBuf,
    seen: Vec<Stamp>,
    pub(crate) services: Vec<Service>,
    /// What is wrong with the files, for people: with file, line and key.
    pub(crate) problems: Vec<String>,
}

impl Announced {
    /// Reads the files.
    pub(crate) fn new(config: &Path, state_dir: &Path, run_dir: &Path) -> Self {
        let mut this = Self {
            folder: state_dir.join("services"),
            config: config.to_path_buf(),
            last_good: state_dir.join("p2pmesh.toml"),
            run_dir: run_dir.to_path_buf(),
            seen: Vec::new(),
            services: Vec::new(),
            problems: Vec::new(),
        };
        this.seen = this.stamps();
        this.read();
        this
    }

    /// Reads the files again if any was added, changed or removed. Whether there are other services now.
    pub(crate) fn refresh(&mut self) -> bool {
        let stamps = self.stamps();
        if stamps == self.seen {
            return false;
        }
        self.seen = stamps;
        let (old, told) = (std::mem::take(&mut self.services), std::mem::take(&mut self.problems));
        self.read();
        for problem in self.problems.iter().filter(|p| !told.contains(p)) {
            log::warn!("{problem}");
        }
        old != self.services
    }

    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |name: OsString, path: &Path| {
            let meta = std::fs::metadata(path).ok();
            (name, meta.as_ref().and_then(|m| m.modified().ok()), meta.map_or(0, |m| m.len()))
        };
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten().take(MAX_ENTRIES);
        let mut all: Vec<Stamp> = entries.map(|e| stamp(e.file_name(), &e.path())).collect();
        all.sort();
        all.push(stamp(self.config.clone().into(), &self.config));
        let chosen = workshop::file(&self.run_dir);
        all.push(stamp(chosen.clone().into(), &chosen));
        all
    }

    /// People's services first: of two of the same type and title the first counts.
    fn read(&mut self) {
        let loaded = mesh_config::load_or_last_good(&self.config, &self.last_good);
        self.problems = loaded.problem_lines(&self.config);
        let (files, faults) = mesh_config::services::load(&self.folder);
        self.problems.extend(faults);
        let people = files.into_iter().map(|f| Service {
            kind: f.kind,
            tcp: f.tcp,
            port: f.port,
            title: f.title,
            text: f.text,
        });
        let manual = workshop::in_force(&self.run_dir, loaded.config.workshop) == Workshop::Manual;
        let own = [
            Service::new("_http", true, 80),
            Service::new("_ipfs-gateway", true, 8080),
            Service::new("_p2pmesh", false, 269),
            // The discard port, as everyone gives it: this type only says that there is a machine.
            Service::new("_workstation", true, 9),
        ];
        let own = own.into_iter().filter(|s| !(manual && s.tcp && WEB_PORTS.contains(&s.port)));
        self.services = people.chain(own).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("mesh-mdns-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("services")).unwrap();
        path
    }

    fn kinds(a: &Announced) -> Vec<(&str, u16)> {
        a.services.iter().map(|s| (s.kind.as_str(), s.port)).collect()
    }

    const OWN: [(&str, u16); 4] =
        [("_http", 80), ("_ipfs-gateway", 8080), ("_p2pmesh", 269), ("_workstation", 9)];

    #[test]
    fn files_that_come_change_and_go_are_followed() {
        let dir = folder("files");
        let config = dir.join("p2pmesh.toml");
        let mut a = Announced::new(&config, &dir, &dir);
        assert_eq!(kinds(&a), OWN);
        assert!(!a.refresh());
        let file = dir.join("services/books.toml");
        std::fs::write(&file, "type = \"_http._tcp\"\nport = 8000\n").unwrap();
        assert!(a.refresh());
        assert_eq!(kinds(&a), [&[("_http", 8000)], &OWN[..]].concat());
        // A mistake takes the service back, and is told with file, line and key.
        std::fs::write(&file, "type = \"_http._tcp\"\nport = \"eight\"\n").unwrap();
        assert!(a.refresh());
        assert_eq!(kinds(&a), OWN);
        assert!(a.problems.iter().any(|p| p.contains("books.toml: line 2, column 1: port:")), "{a:?}");
        std::fs::remove_file(&file).unwrap();
        assert!(!a.refresh());
        assert_eq!(a.problems, Vec::<String>::new());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_manual_workshop_has_the_web_ports_for_itself_and_gives_them_back() {
        let dir = folder("manual");
        let config = dir.join("p2pmesh.toml");
        let mut a = Announced::new(&config, &dir, &dir);
        std::fs::write(&config, "workshop = \"manual\"\n").unwrap();
        assert!(a.refresh());
        assert_eq!(kinds(&a), OWN[2..]);
        // What a participant puts on port 80 by hand can be announced by hand.
        std::fs::write(dir.join("services/mine.toml"), "type = \"_http._tcp\"\nport = 80\n").unwrap();
        assert!(a.refresh());
        assert_eq!(kinds(&a), [&OWN[..1], &OWN[2..]].concat());
        std::fs::remove_file(dir.join("services/mine.toml")).unwrap();
        std::fs::write(&config, "workshop = \"auto\"\n").unwrap();
        assert!(a.refresh());
        assert_eq!(kinds(&a), OWN);
        workshop::choose(&dir, Workshop::Manual).unwrap();
        assert!(a.refresh());
        assert_eq!(kinds(&a), OWN[2..]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
