"""Debian's packages under OpenEmbedded's names: the table packages.ini, and which files of them are taken."""

from __future__ import annotations

import configparser
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil

import elf
from common import TREE, BuildError
from debs import Apt, Deb, licences

TABLE = pathlib.Path(__file__).resolve().parent / "packages.ini"
KNOWN = {"debian", "follow", "files", "links", "deploy", "tool", "note", "applets"}
LIBRARY_FOLDERS = ["usr/lib/aarch64-linux-gnu", "usr/lib"]
# Applets that belong to the administrator's folder; scripts call some of them by full path.
SYSTEM_APPLETS = set("""acpid adjtimex arp arping blkid brctl chroot devmem fbset fdisk freeramdisk fsck fstrim getty halt hdparm
hwclock ifconfig ifdown ifup init insmod ip klogd loadkmap losetup lsmod mdev mkdosfs mkfs.vfat mkswap modinfo modprobe
nameif nologin pivot_root poweroff reboot rmmod route run-init runlevel sendmail setconsole start-stop-daemon sulogin
swapoff swapon switch_root sysctl syslogd tc tunctl udhcpc udhcpc6 udhcpd vconfig watchdog zcip""".split())


@dataclasses.dataclass
class Entry:
    """One section of packages.ini."""

    name: str
    line: int
    fields: dict[str, str]

    def lines(self, key: str) -> list[str]:
        """The non-empty lines of a field."""
        return [line.strip() for line in self.fields.get(key, "").splitlines() if line.strip()]


def read_table(path: pathlib.Path = TABLE) -> dict[str, Entry]:
    """All entries; an unknown key is an error that names its line."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    text = path.read_text()
    try:
        parser.read_string(text, source=str(path))
    except configparser.Error as error:
        raise BuildError(str(error)) from error
    numbers = {line.strip()[1:-1]: number for number, line in enumerate(text.splitlines(), 1) if line.startswith("[")}
    table = {}
    for name in parser.sections():
        fields = dict(parser[name])
        unknown = sorted(set(fields) - KNOWN)
        if unknown:
            raise BuildError(f"{path}:{numbers[name]}: [{name}] has an unknown key '{unknown[0]}'")
        if not {"debian", "tool", "note"} & set(fields):
            raise BuildError(f"{path}:{numbers[name]}: [{name}] needs one of: debian, tool, note")
        table[name] = Entry(name, numbers[name], fields)
    return table


class ThirdParty:
    """Fetches, unpacks and lays out the table's packages for arm64."""

    def __init__(self, state: pathlib.Path, table: dict[str, Entry] | None = None):
        self.table = read_table() if table is None else table
        self.apt = Apt("arm64")
        self.state = state
        self.applets: list[str] = []
        self._laying = ""
        try:
            self.known = json.loads(state.read_text())
        except (OSError, ValueError):
            self.known = {}

    def debs(self, entry: Entry) -> list[Deb]:
        """The entry's package (first) and all it depends on; asked of apt only when the table or the lists changed."""
        stamp = self.apt.home / "updated"
        key = hashlib.sha256(repr((entry.fields, (TREE / "ci/versions.sh").read_text(), stamp.stat().st_mtime_ns if stamp.exists() else 0,
                                   os.environ.get("P2PMESH_MIRROR"))).encode()).hexdigest()
        kept = self.known.get(entry.name)
        if kept and kept["key"] == key:
            found = [Deb(**deb) for deb in kept["debs"]]
            if all(os.path.isfile(deb.path) and os.path.getsize(deb.path) == deb.size for deb in found):
                return found
        try:
            found = self._resolve(entry)
        except BuildError as error:
            raise BuildError(f"{_short(TABLE)}:{entry.line}: [{entry.name}]: {error}") from error
        key = hashlib.sha256(repr((entry.fields, (TREE / "ci/versions.sh").read_text(), stamp.stat().st_mtime_ns,
                                   os.environ.get("P2PMESH_MIRROR"))).encode()).hexdigest()
        self.known[entry.name] = {"key": key, "debs": [dataclasses.asdict(deb) for deb in found]}
        self.save()
        return found

    def _resolve(self, entry: Entry) -> list[Deb]:
        name = entry.fields["debian"]
        if "follow" in entry.fields:
            self.apt.update()
            names = self.apt.follow(name, entry.fields["follow"])
            if len(names) != 1:
                raise BuildError(f"{name} depends on {len(names)} packages matching {entry.fields['follow']}, expected one: {names}")
            return self.apt.fetch(names)
        if "deploy" in entry.fields:
            return self.apt.fetch([name])
        found = self.apt.fetch([name], closure=True)
        return sorted(found, key=lambda deb: (deb.name != name, deb.name))

    def fingerprint(self, name: str) -> str:
        """Changes when the entry or one of its packages does."""
        entry = self.table[name]
        debs = self.debs(entry) if "debian" in entry.fields else []
        return hashlib.sha256(repr((sorted(entry.fields.items()), [deb.sha256 for deb in debs])).encode()).hexdigest()

    # -- into the root ------------------------------------------------------------------------------------------------

    def lay(self, name: str, put) -> None:
        """Call `put(source or link target, destination below the root)` for every file of entry `name`."""
        entry = self.table[name]
        if "debian" not in entry.fields or "deploy" in entry.fields:
            return
        debs = self.debs(entry)
        self._laying = name
        self.known[name].pop("origins", None)
        folders = [(deb, self.apt.unpack(deb)) for deb in debs]
        taken: dict[str, pathlib.Path] = {}
        for number, pattern in enumerate(entry.lines("files")):
            matches = sorted(path for path in folders[0][1].glob(pattern) if not path.is_dir() or path.is_symlink())
            if not matches and not any(_same_place(pattern, other) for other in entry.lines("files") if other != pattern):
                raise BuildError(f"{_short(TABLE)}:{entry.line}: [{name}]: {debs[0].name} {debs[0].version} has no file {pattern}")
            for path in matches:
                self._take(folders, 0, path, taken)
        self._libraries(folders, taken)
        for place, source in sorted(taken.items()):
            put(source, place)
        for line in entry.lines("links"):
            place, _, target = (part.strip() for part in line.partition("->"))
            put(target, place)
        self.save()
        if entry.fields.get("applets"):
            self.applets = applets(taken["usr/bin/busybox"])

    def _take(self, folders, index: int, path: pathlib.Path, taken: dict[str, pathlib.Path]) -> None:
        deb, folder = folders[index]
        relative = str(path.relative_to(folder))
        # Debian is merged-/usr: what a package still ships in /bin, /sbin or /lib belongs below /usr.
        place = re.sub(r"^(bin|sbin|lib)/", r"usr/\1/", relative)
        if place in taken:
            return
        taken[place] = path
        self._note(deb, folder)
        if path.is_symlink():
            target = pathlib.Path(os.path.normpath(path.parent / os.readlink(path)))
            if os.path.lexists(target) and not target.is_dir() and folder in target.parents:
                self._take(folders, index, target, taken)

    def _libraries(self, folders, taken: dict[str, pathlib.Path]) -> None:
        """Add every shared library the taken programs need, from the packages apt resolved."""
        waiting = list(taken.values())
        while waiting:
            path = waiting.pop()
            if path.is_symlink() or not path.is_file():
                continue
            found = elf.needed(path)
            if found is None:
                continue
            names, interpreter = found
            for soname in [*names, *([os.path.basename(interpreter)] if interpreter else [])]:
                before = set(taken)
                if not self._library(folders, soname, taken):
                    raise BuildError(f"{path.name} needs {soname}, which is in none of: "
                                     + " ".join(deb.name for deb, _ in folders))
                waiting += [taken[place] for place in set(taken) - before]

    def _library(self, folders, soname: str, taken: dict[str, pathlib.Path]) -> bool:
        for index, (_, folder) in enumerate(folders):
            for place in ["usr/lib/aarch64-linux-gnu", "usr/lib", "lib/aarch64-linux-gnu", "lib"]:
                if os.path.lexists(folder / place / soname):
                    self._take(folders, index, folder / place / soname, taken)
                    if soname.startswith("ld-linux") and place.endswith("aarch64-linux-gnu"):
                        if os.path.lexists(folder / "usr/lib" / soname):
                            self._take(folders, index, folder / "usr/lib" / soname, taken)
                    return True
        return False

    # -- beside the root -----------------------------------------------------------------------------------------------

    def deploy(self, name: str, staging: pathlib.Path) -> pathlib.Path:
        """Link the entry's unpacked package into `staging` for the assembler."""
        entry = self.table[name]
        [deb] = self.debs(entry)
        self._laying = name
        folder = self.apt.unpack(deb)
        self._note(deb, folder)
        place = staging / entry.fields["deploy"]
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_symlink() or place.exists():
            place.unlink()
        place.symlink_to(folder)
        return place

    def _note(self, deb: Deb, folder: pathlib.Path) -> None:
        """Remember that files of `deb` are in what is built (kept across runs: the next may have nothing to lay)."""
        kept = self.known[self._laying].setdefault("origins", {})
        if deb.name not in kept:
            kept[deb.name] = {"name": deb.name, "version": deb.version, "architecture": deb.arch, "sha256": deb.sha256,
                              "licence": licences(folder, deb.name), "source": deb.source, "origin": f"Debian {deb.suite}: {deb.pool_path}"}

    def save(self) -> None:
        """Keep what was resolved and taken for the next run."""
        self.state.parent.mkdir(parents=True, exist_ok=True)
        self.state.write_text(json.dumps(self.known, indent=1))

    def origins(self, entries) -> list[dict]:
        """Every Debian package that the named entries' files come from."""
        found = {name: origin for entry in entries for name, origin in self.known.get(entry, {}).get("origins", {}).items()}
        return [found[name] for name in sorted(found)]

    def check_tool(self, name: str, where: str) -> None:
        """A build-host program the table names must be there."""
        tool = self.table[name].fields["tool"]
        if not shutil.which(tool, path=os.environ.get("P2PMESH_PATH") or None):
            raise BuildError(f"{where}: {name} is needed: no program {tool} on this machine (run ./build.sh setup)")


def _same_place(one: str, other: str) -> bool:
    """bin/ip and usr/bin/ip are alternatives: Debian moves files below /usr one package at a time."""
    return re.sub(r"^usr/", "", one).split("/")[-1] == re.sub(r"^usr/", "", other).split("/")[-1]


def applets(busybox: pathlib.Path) -> list[str]:
    """The names of busybox's applets, from the sorted name table in its data."""
    match = re.search(rb"\[\0\[\[\0(?:[a-z0-9][a-z0-9_.-]*\0){50,}", busybox.read_bytes())
    if not match:
        raise BuildError(f"{busybox}: no table of applets found")
    return [name.decode() for name in match[0].split(b"\0") if name]


def _short(path: pathlib.Path) -> str:
    return str(path.relative_to(TREE)) if TREE in path.parents else str(path)
