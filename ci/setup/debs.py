"""Debian packages without installing them: resolve with apt, verify by apt's signatures, unpack into the cache.

Everything happens under private lists (`Dir::State::Lists` …) so that the machine's own apt state is never touched
and no root is needed. The mirror is the machine's own; P2PMESH_MIRROR overrides it. Proxy and authentication settings
of /etc/apt/apt.conf.d stay in force.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import urllib.parse

from common import BuildError, cache_dir, locked, say, versions

KEYRING = pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg")
HELPER = "/usr/lib/apt/apt-helper"
# Indexes of no use here that the machine may have switched on (software centres, apt-file, command-not-found).
UNWANTED_TARGETS = ["DEP-11", "DEP-11-icons-small", "DEP-11-icons", "DEP-11-icons-large", "DEP-11-icons-hidpi",
                    "DEP-11-icons-large-hidpi", "Contents-deb", "CNF", "Translations"]


@dataclasses.dataclass(frozen=True)
class Deb:
    """One verified package file in the cache."""

    name: str
    version: str
    arch: str
    sha256: str
    size: int
    source: str      # source package name
    pool_path: str   # path below the mirror's root
    suite: str       # e.g. "trixie/main"
    depends: str
    path: str        # the file in the cache

    @property
    def stem(self) -> str:
        """File name without `.deb`; names the unpacked folder too."""
        return pathlib.Path(self.path).name[: -len(".deb")]


def mirrors() -> tuple[str, str | None]:
    """(archive, security archive or None), as the machine's own apt configuration names them."""
    chosen = os.environ.get("P2PMESH_MIRROR")
    if chosen:
        return chosen.rstrip("/"), os.environ.get("P2PMESH_SECURITY_MIRROR")
    # Only an archive of Debian itself will do: on Ubuntu the host's mirror has other packages under other keys.
    targets = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)|$(ORIGIN)|$(LABEL)|$(CODENAME)"],
                             check=False, capture_output=True, text=True).stdout
    archive = security = None
    for line in targets.splitlines():
        uri, origin, label, _ = (line.split("|") + ["", "", ""])[:4]
        if origin == "Debian" and label == "Debian":
            archive = archive or uri.rstrip("/")
        elif origin == "Debian" and label == "Debian-Security":
            security = security or uri.rstrip("/")
    archive = archive or _mirror_from_files(r"/debian/?$")
    security = security or _mirror_from_files(r"/debian-security/?$")
    if not archive:
        raise BuildError("no Debian mirror is configured on this machine (is it Ubuntu?), and the image is made of Debian's "
                         "packages.\n  Set one, for example: export P2PMESH_MIRROR=http://<a Debian mirror>/debian")
    return archive, security


def _mirror_from_files(pattern: str) -> str | None:
    """The first URI matching `pattern` in sources.list or *.sources: for machines that never ran `apt-get update`."""
    places = subprocess.run(["apt-config", "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"],
                            check=False, capture_output=True, text=True).stdout
    found = dict(word.split("=", 1) for word in shlex.split(places) if "=" in word)
    listed, parts = (pathlib.Path(found.get(name, "/dev/null")) for name in ("LIST", "PARTS"))
    for path in [listed, *(sorted(parts.iterdir()) if parts.is_dir() else [])]:
        if not path.is_file() or path.suffix not in (".list", ".sources"):
            continue
        for stanza in re.split(r"\n\s*\n", path.read_text(errors="replace")):
            if re.search(r"(?mi)^enabled:\s*(no|false|0|off|without|disable)\s*$", stanza):
                continue
            for line in re.findall(r"(?mi)^\s*(?:deb\s|uris:)(.*)$", stanza):
                for word in line.split():
                    if re.match(r"(https?|file|copy|mirror|cdrom|ftp)[+:]", word) and re.search(pattern, word):
                        return word.rstrip("/")
    return None


class Apt:
    """A private apt for one architecture."""

    def __init__(self, arch: str):
        self.arch = arch
        self.home = cache_dir() / "apt" / arch
        self.pool = cache_dir() / "debs"
        self.unpacked = cache_dir() / "unpacked"
        for part in ("lists/partial", "cache/archives/partial"):
            (self.home / part).mkdir(parents=True, exist_ok=True)
        self.pool.mkdir(exist_ok=True)
        self.unpacked.mkdir(exist_ok=True)
        (self.home / "status").touch()

    # -- apt's own machinery ------------------------------------------------------------------------------------

    def _options(self) -> list[str]:
        home = self.home
        settings = {
            "Dir::State": home, "Dir::State::Lists": home / "lists", "Dir::State::status": home / "status",
            "Dir::State::extended_states": home / "extended_states",
            "Dir::Cache": home / "cache", "Dir::Cache::Archives": home / "cache/archives",
            "Dir::Cache::pkgcache": "pkgcache.bin", "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
            "Dir::Etc::sourcelist": home / "sources.list", "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null", "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Architecture": self.arch, "APT::Architectures": self.arch, "APT::Sandbox::User": "root",
            "APT::Get::List-Cleanup": "true", "APT::Default-Release": "", "Acquire::Languages": "none",
            "Acquire::Retries": "3", "Dpkg::Use-Pty": "0",
        }
        for target in UNWANTED_TARGETS:
            settings[f"Acquire::IndexTargets::deb::{target}::DefaultEnabled"] = "false"
        return [f"-o{name}={value}" for name, value in settings.items()]

    def _run(self, *command: str, cwd: pathlib.Path | None = None, show: bool = False) -> str:
        tool, *rest = command
        result = subprocess.run([tool, *self._options(), *rest], check=False, cwd=cwd, text=True, stdin=subprocess.DEVNULL,
                                stdout=sys.stderr if show else subprocess.PIPE, stderr=subprocess.PIPE,
                                env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"})
        if result.returncode != 0:
            raise BuildError(f"{tool} {' '.join(rest)[:200]} failed:\n" + _indent(result.stderr))
        return result.stdout or ""

    def sources(self) -> list[str]:
        """Names of the suites in use, for the manifest (no host names: a mirror is not part of what was built)."""
        return [" ".join(line.split()[4:]) for line in (self.home / "sources.list").read_text().splitlines()]

    def update(self, force: bool = False) -> None:
        """Fetch the signed lists, unless they are there already for the same sources."""
        pins = versions()
        suite, components = pins["DEBIAN_SUITE"], pins["DEBIAN_COMPONENTS"]
        keyring = pathlib.Path(os.environ.get("P2PMESH_KEYRING", KEYRING))
        if not keyring.is_file():
            raise BuildError(f"{keyring} is missing: Debian's packages can't be verified without it.\n"
                             "  Install it: apt-get install debian-archive-keyring (or set P2PMESH_KEYRING)")
        stamp = self.home / "updated"
        if not force and stamp.exists() and not os.environ.get("P2PMESH_MIRROR"):
            return   # the machine's mirror is asked only when lists are needed: a rebuild works offline
        archive, security = mirrors()
        head = f"deb [arch={self.arch} signed-by={keyring}]"
        lines = [f"{head} {archive} {suite} {components}", f"{head} {archive} {suite}-updates {components}",
                 f"{head} {archive} {pins['RUST_DEBIAN_SUITE']} main"]
        if security:
            lines.append(f"{head} {security} {suite}-security {components}")
        wanted = "\n".join(lines) + "\n"
        listed = self.home / "sources.list"
        if not force and stamp.exists() and listed.exists() and listed.read_text() == wanted:
            return
        say(f"reading Debian {suite}'s package lists ({self.arch})")
        listed.write_text(wanted)
        stamp.unlink(missing_ok=True)
        try:
            self._run("apt-get", "-q", "--error-on=any", "update")
        except BuildError as error:
            hint = ""
            if re.search("NO_PUBKEY|Missing key", str(error)):   # gpgv's words, and those of sqv in apt 3
                hint = (f"\n  {keyring} does not know Debian {suite}'s keys: install a newer debian-archive-keyring (the package is in "
                        "every\n  Debian mirror below pool/main/d/debian-archive-keyring), or set P2PMESH_KEYRING to its .gpg file")
            raise BuildError(f"{error}{hint}") from error
        if not security:
            say(f"NOTE: no Debian security archive is configured here: {suite}-security is not used (set P2PMESH_SECURITY_MIRROR)")
        stamp.touch()

    # -- what is there --------------------------------------------------------------------------------------------

    def show(self, name: str) -> dict[str, str]:
        """The Packages stanza apt would choose for `name` (or `name=version`)."""
        try:
            text = self._run("apt-cache", "show", "--no-all-versions", name)
        except BuildError:
            text = ""
        if not text.strip():
            raise BuildError(f"Debian has no package {name} for {self.arch} in: " + "; ".join(self.sources()))
        return parse_stanza(text.split("\n\n", 1)[0])

    def all_versions(self, name: str) -> list[str]:
        """Every version of `name` in the lists, newest first."""
        text = self._run("apt-cache", "madison", name)
        return [line.split("|")[1].strip() for line in text.splitlines() if line.count("|") == 2]

    def follow(self, name: str, pattern: str) -> list[str]:
        """The direct dependencies of `name` that match `pattern`: from a meta package to the real one."""
        words = re.findall(r"[a-z0-9][a-z0-9.+-]+", re.sub(r"\([^)]*\)", "", self.show(name).get("Depends", "")))
        return [word for word in words if re.fullmatch(pattern, word)]

    def closure(self, names: list[str]) -> list[str]:
        """`name=version` of the packages and all they depend on (no recommendations), chosen by apt."""
        text = self._run("apt-get", "-q", "-y", "--no-install-recommends", "--print-uris", "install", *names)
        found = []
        for line in text.splitlines():
            match = re.match(r"'[^']*' (\S+)_(\S+)_(\S+)\.deb \d+ ", line)
            if match:
                found.append(f"{match[1]}={urllib.parse.unquote(match[2])}")
        return sorted(found)

    # -- files ----------------------------------------------------------------------------------------------------

    def fetch(self, names: list[str], closure: bool = False) -> list[Deb]:
        """Download `names` (and what they depend on, with `closure`) into the pool; every file's SHA-256 is checked."""
        with locked(self.home / "lock"):
            self.update()
            try:
                return self._fetch(names, closure)
            except BuildError as first:
                # The archive moves on; lists of last week name files that are gone.
                say("a package could not be fetched; reading the package lists afresh")
                try:
                    self.update(force=True)
                    return self._fetch(names, closure)
                except BuildError as second:
                    raise second from first

    def _fetch(self, names: list[str], closure: bool) -> list[Deb]:
        pins = self.closure(names) if closure else names
        debs = self._describe(pins)
        missing = [deb for deb in debs if not _intact(deb)]
        if missing:
            total = sum(deb.size for deb in missing) / 1e6
            say(f"fetching {len(missing)} packages, {total:.1f} MB")
            self._download(missing)
        for deb in missing:
            if not _intact(deb):
                raise BuildError(f"{deb.path} does not have the SHA-256 the signed package list gives: {deb.sha256}")
        return debs

    def _download(self, debs: list[Deb]) -> None:
        """apt-helper and not `apt-get download`: only the former goes on with what an earlier run got of a file."""
        places = {deb.sha256: deb.path for deb in debs}
        for deb in debs:
            # One of full size with other bytes would be taken for done.
            if os.path.isfile(deb.path) and os.path.getsize(deb.path) >= deb.size:
                os.unlink(deb.path)
        jobs: list[str] = []
        for line in self._run("apt-get", "-q", "--print-uris", "download", *(f"{deb.name}={deb.version}" for deb in debs)).splitlines():
            match = re.match(r"'([^']+)' \S+ \d+ SHA256:([0-9a-f]{64})$", line)
            if match and match[2] in places:
                jobs += [match[1], places[match[2]], f"SHA256:{match[2]}"]
        try:
            self._run(HELPER, "-q", "download-file", *jobs, cwd=self.pool, show=True)
        except BuildError as error:
            raise BuildError(f"{error}\n  What has arrived is kept: once the mirror can be reached, run this again.") from error

    def _describe(self, pins: list[str]) -> list[Deb]:
        """What apt knows of the packages; two calls however many there are."""
        try:
            text = self._run("apt-cache", "show", "--no-all-versions", *pins)
        except BuildError:
            for pin in pins:   # one call each names the one that is missing
                self.show(pin)
            raise
        stanzas = [parse_stanza(part) for part in text.split("\n\n") if part.strip()]
        suites: dict[tuple[str, str], str] = {}
        for line in self._run("apt-cache", "madison", *[pin.split("=")[0] for pin in pins]).splitlines():
            parts = [part.strip() for part in line.split("|")]
            if len(parts) == 3:
                suites.setdefault((parts[0], parts[1]), parts[2].split()[1])
        debs = []
        for stanza in stanzas:
            name, version, arch = stanza["Package"], stanza["Version"], stanza["Architecture"]
            file = self.pool / f"{name}_{version.replace(':', '%3a')}_{arch}.deb"
            debs.append(Deb(name, version, arch, stanza["SHA256"], int(stanza["Size"]), stanza.get("Source", name).split()[0],
                            stanza["Filename"], suites.get((name, version), "unknown"), stanza.get("Depends", ""), str(file)))
        return debs

    def unpack(self, deb: Deb) -> pathlib.Path:
        """The folder holding the package's files (unpacked once, then reused)."""
        folder = self.unpacked / deb.stem
        mark = folder / ".complete"
        with locked(self.home / "unpack.lock"):
            if not (mark.exists() and mark.read_text() == deb.sha256):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                subprocess.run(["dpkg-deb", "-x", deb.path, str(folder)], check=True)
                mark.write_text(deb.sha256)
        return folder


def parse_stanza(text: str) -> dict[str, str]:
    """One paragraph of a Packages file; continuation lines are joined."""
    fields: dict[str, str] = {}
    key = None
    for line in text.splitlines():
        if line[:1] in (" ", "\t") and key:
            fields[key] += "\n" + line.strip()
        elif ":" in line:
            key, value = line.split(":", 1)
            fields[key] = value.strip()
    return fields


def licences(folder: pathlib.Path, package: str) -> str:
    """The licences a package's machine-readable copyright file names, in short form."""
    path = folder / "usr/share/doc" / package / "copyright"
    if not path.is_file():
        return "see the source package"
    text = path.read_text(errors="replace")
    names = sorted({match.strip() for match in re.findall(r"^License:[ \t]*(\S[^\n]*)$", text, re.M)})
    return ", ".join(names) if names else "see usr/share/doc/%s/copyright in the package" % package


def _intact(deb: Deb) -> bool:
    path = pathlib.Path(deb.path)
    if not path.is_file() or path.stat().st_size != deb.size:
        return False
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest() == deb.sha256


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.strip().splitlines()[-12:])
