"""Set-up and flashing: pins, the machine's mirror, packages' words, and what ./build.sh flash refuses."""

import hashlib
import importlib.machinery
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "setup"))

import common    # noqa: E402
import debs      # noqa: E402
import private   # noqa: E402


def script(name):
    """A program of ci/ without .py, as a module."""
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(HERE.parent / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


class Pins(unittest.TestCase):
    """ci/versions.sh."""

    def test_bash_and_python_read_the_same(self):
        pins = common.versions()
        self.assertIn("BITBAKE_SETUP_SHA256", pins)
        names = " ".join(pins)
        shown = subprocess.run(["bash", "-c", f'. {common.TREE}/ci/versions.sh; for n in {names}; do printf "%s\\n" "${{!n}}"; done'],
                               check=True, capture_output=True, text=True).stdout.splitlines()
        self.assertEqual(shown, list(pins.values()))


UBUNTU = """\
Types: deb
URIs: http://archive.invalid/ubuntu/
Suites: noble noble-updates noble-backports
Components: main restricted universe multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg

Types: deb
URIs: http://security.invalid/ubuntu/
Suites: noble-security
Components: main restricted universe multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg
"""


class Mirrors(unittest.TestCase):
    """The mirror comes from the machine, in either form of apt's sources, or from P2PMESH_MIRROR. apt itself reads them,
    under a root made for the test."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)
        (self.folder / "sources.list.d").mkdir()
        (self.folder / "lists/partial").mkdir(parents=True)
        (self.folder / "status").touch()
        settings = {"Dir::Etc::sourcelist": "sources.list", "Dir::Etc::sourceparts": "sources.list.d", "Dir::Etc": self.folder,
                    "Dir::State::lists": self.folder / "lists", "Dir::State::status": self.folder / "status",
                    "Dir::Cache": self.folder}
        config = self.folder / "apt.conf"
        config.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
        patcher = mock.patch.dict(os.environ, {"APT_CONFIG": str(config)})
        patcher.start()
        self.addCleanup(patcher.stop)
        for name in ("P2PMESH_MIRROR", "P2PMESH_SECURITY_MIRROR"):
            os.environ.pop(name, None)

    def sources(self, name, text, *releases):
        """Writes a file of sources, and the Release files that `apt-get update` would have fetched: (URI, origin, label)."""
        (self.folder / name).write_text(text)
        for uri, suite, origin, label in releases:
            place = self.folder / "lists" / (uri.split("://")[1].strip("/").replace("/", "_") + f"_dists_{suite}")
            pathlib.Path(f"{place}_Release").write_text(f"Origin: {origin}\nLabel: {label}\nSuite: {suite}\nCodename: {suite}\n")
            pathlib.Path(f"{place}_main_binary-{private.host_arch()}_Packages").write_text("Package: x\n\n")

    def test_from_apt_itself(self):
        self.sources("sources.list", "deb http://one.invalid/d bookworm main\ndeb http://one.invalid/s bookworm-security main\n",
                     ("http://one.invalid/d", "bookworm", "Debian", "Debian"),
                     ("http://one.invalid/s", "bookworm-security", "Debian", "Debian-Security"))
        self.assertEqual(debs.mirrors(), ("http://one.invalid/d", "http://one.invalid/s"))

    def test_others_packages_do_not_count(self):
        self.sources("sources.list", "deb http://one.invalid/ubuntu noble main\ndeb http://two.invalid/debian bookworm main\n",
                     ("http://one.invalid/ubuntu", "noble", "Ubuntu", "Ubuntu"))
        self.assertEqual(debs.mirrors(), ("http://two.invalid/debian", None))

    def test_one_line_form_with_options_before_the_first_update(self):
        self.sources("sources.list", "# deb http://no.invalid/debian x main\ndeb [arch=amd64] http://two.invalid/debian/ x main\n")
        self.assertEqual(debs.mirrors(), ("http://two.invalid/debian", None))

    def test_deb822_form(self):
        self.sources("sources.list.d/debian.sources", "Types: deb\nURIs: https://no.invalid/debian\nSuites: trixie\nComponents: main\n"
                     "Enabled: no\n\nTypes: deb\nURIs: https://three.invalid/debian\nSuites: trixie\nComponents: main\n\nTypes: deb\n"
                     "URIs: https://three.invalid/debian-security\nSuites: trixie-security\nComponents: main\n")
        self.assertEqual(debs.mirrors(), ("https://three.invalid/debian", "https://three.invalid/debian-security"))

    def test_ubuntu_is_told_what_to_set(self):
        for updated in (False, True):
            releases = [(f"http://{host}.invalid/ubuntu", suite, "Ubuntu", "Ubuntu")
                        for host, suite in (("archive", "noble"), ("archive", "noble-updates"), ("security", "noble-security"))]
            self.sources("sources.list.d/ubuntu.sources", UBUNTU, *(releases if updated else []))
            result = subprocess.run([sys.executable, str(HERE.parent / "setup/setup.py")], capture_output=True, text=True, check=False,
                                    env={**os.environ, "P2PMESH_CACHE": str(self.folder / "cache")})
            self.assertEqual(result.returncode, 1)
            self.assertIn("export P2PMESH_MIRROR=http://", result.stderr)
            self.assertNotIn("Traceback", result.stderr)

    def test_ubuntu_with_a_mirror_uses_debians_suites_and_keys_only(self):
        self.sources("sources.list.d/ubuntu.sources", UBUNTU)
        os.environ.update(P2PMESH_MIRROR="http://four.invalid/debian/", P2PMESH_SECURITY_MIRROR="http://four.invalid/debian-security",
                          P2PMESH_KEYRING=str(self.folder / "status"), P2PMESH_CACHE=str(self.folder / "cache"))
        apt = debs.Apt("arm64")
        with mock.patch.object(apt, "_run") as run, mock.patch.object(debs, "say"):
            apt.update()
        run.assert_called_once()
        lines = (apt.home / "sources.list").read_text().splitlines()
        head = f"deb [arch=arm64 signed-by={self.folder / 'status'}] "
        self.assertEqual([line.removeprefix(head).split()[:2] for line in lines], [
            ["http://four.invalid/debian", "trixie"], ["http://four.invalid/debian", "trixie-updates"],
            ["http://four.invalid/debian", "trixie-backports"], ["http://four.invalid/debian-security", "trixie-security"]])
        self.assertIn(f"-oDir::Etc::sourcelist={apt.home / 'sources.list'}", apt._options())

    def test_a_keyring_that_is_too_old_is_told(self):
        os.environ.update(P2PMESH_MIRROR="http://four.invalid/debian", P2PMESH_KEYRING=str(self.folder / "status"),
                          P2PMESH_CACHE=str(self.folder / "cache"))
        apt = debs.Apt("arm64")
        for words in ("NO_PUBKEY 6ED0E7B82643E131", "Missing key 4CB50190207B, which is needed to verify signature."):
            with mock.patch.object(apt, "_run", side_effect=common.BuildError(words)), mock.patch.object(debs, "say"), \
                    self.assertRaisesRegex(common.BuildError, "install a newer debian-archive-keyring"):
                apt.update()

    def test_a_cache_that_can_not_be_made_is_told(self):
        (self.folder / "file").touch()
        result = subprocess.run([sys.executable, str(HERE.parent / "setup/setup.py")], capture_output=True, text=True, check=False,
                                env={**os.environ, "P2PMESH_CACHE": str(self.folder / "file/cache")})
        self.assertEqual((result.returncode, result.stderr.count("\n")), (1, 1), result.stderr)
        self.assertIn("P2PMESH_CACHE", result.stderr)

    def test_override(self):
        os.environ["P2PMESH_MIRROR"] = "http://four.invalid/debian/"
        self.assertEqual(debs.mirrors()[0], "http://four.invalid/debian")


class HostPackages(unittest.TestCase):
    """ci/setup/setup.sh on a machine that has next to nothing: a folder of stand-ins is all of its PATH."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.bin = pathlib.Path(holder.name)
        self.calls = self.bin / "calls"
        self.program("dirname", f'exec {shutil.which("dirname")} "$@"')

    def program(self, name, body):
        (self.bin / name).write_text(f"#!/bin/sh\n{body}\n")
        (self.bin / name).chmod(0o755)

    def run_setup(self):
        return subprocess.run(["/bin/bash", str(HERE.parent / "setup/setup.sh")], capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL, env={"PATH": str(self.bin), "HOME": str(self.bin)})

    def test_an_ordinary_user_is_told_exactly_what_is_missing(self):
        self.program("id", "echo 1000")
        self.program("apt-get", "echo never; exit 9")
        for with_sudo in (False, True):   # a sudo that wants a password, and nobody to type it
            if with_sudo:
                self.program("sudo", "exit 1")
            result = self.run_setup()
            self.assertEqual(result.returncode, 1)
            self.assertRegex(result.stderr, r"apt-get install --no-install-recommends python3 python3-venv gcc .*git .*tmux")
            self.assertNotIn("never", result.stdout)

    def test_with_sudo_nothing_is_asked(self):
        self.program("id", "echo 1000")
        self.program("sudo", f'[ "$1" = -n ] && exit 0; echo "$@" >> {self.calls}; exit 1')
        self.program("apt-get", "exit 9")
        self.assertEqual(self.run_setup().returncode, 1)
        first, update, again = self.calls.read_text().splitlines()
        self.assertRegex(first, "^env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install python3 ")
        self.assertIn("apt-get -q update", update)
        self.assertEqual(first, again)

    def test_old_lists_are_read_afresh_once(self):
        self.program("id", "echo 0")
        self.program("apt-get", f'echo "$*" >> {self.calls}; case "$*" in *update) exit 0;; esac; [ "$(/usr/bin/wc -l < {self.calls})" -gt 1 ]')
        self.program("python3", 'case "$*" in *setup.py*) echo reached;; *) exit 1;; esac')
        result = self.run_setup()
        self.assertEqual((result.returncode, result.stdout), (0, "reached\n"), result.stderr)
        self.assertEqual(len(self.calls.read_text().splitlines()), 3)

    def test_another_distribution(self):
        self.assertIn("no apt-get", self.run_setup().stderr)


class Packages(unittest.TestCase):
    """What is read from package lists and packages."""

    def test_stanza_with_continued_lines(self):
        self.assertEqual(debs.parse_stanza("Package: x\nDescription: a\n b\n .\nDepends: y (>= 1)\n")["Depends"], "y (>= 1)")

    def test_a_file_with_other_bytes_is_not_intact(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "x.deb")
            path.write_bytes(b"good")
            deb = debs.Deb("x", "1", "all", hashlib.sha256(b"good").hexdigest(), 4, "x", "p", "s", "", str(path))
            self.assertTrue(debs._intact(deb))
            path.write_bytes(b"evil")
            self.assertFalse(debs._intact(deb))

    def test_merging_packages_moves_them_below_usr(self):
        with tempfile.TemporaryDirectory() as folder:
            source, target = pathlib.Path(folder, "a"), pathlib.Path(folder, "b")
            (source / "lib/x").mkdir(parents=True)
            (source / "lib/x/file").write_text("1")
            (source / ".complete").write_text("mark")
            private.merge(source, target)
            self.assertEqual([str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()], ["usr/lib/x/file"])


class PrivateTools(unittest.TestCase):
    """Programs of Debian's behind wrappers."""

    def test_a_wrapper_passes_everything_on(self):
        with tempfile.TemporaryDirectory() as folder:
            home = pathlib.Path(folder)
            arch = private.host_arch()
            libraries = home / "root/usr/lib" / private.TRIPLETS[arch]
            libraries.parent.mkdir(parents=True)
            libraries.symlink_to(f"/usr/lib/{private.TRIPLETS[arch]}")
            (home / "root/usr/bin").mkdir()
            (home / "bin").mkdir()
            shutil.copy("/usr/bin/env", home / "root/usr/bin/show")
            private._wrap(home, arch, "show", "show", {**private.SETS["rust"], "environment": {"ROOT": "{root}"}})
            # cargo hands its tests variables with a dash in their names.
            shown = subprocess.run([str(home / "bin/show"), "X=a b"], env={"CARGO_BIN_EXE_a-b": "1", "PATH": os.defpath}, check=True,
                                   capture_output=True, text=True).stdout.splitlines()
            for line in ("CARGO_BIN_EXE_a-b=1", "X=a b", f"ROOT={home}/root"):
                self.assertIn(line, shown)


class Licences(unittest.TestCase):
    """ci/licences: SPDX expressions and version requirements."""

    def test_expressions(self):
        allowed = script("licences").permitted
        for good in ("MIT", "MIT OR GPL-3.0", "(MIT OR Apache-2.0) AND Unicode-3.0", "MIT/Apache-2.0", "Apache-2.0 WITH LLVM-exception"):
            self.assertTrue(allowed(good), good)
        for bad in ("GPL-3.0", "MIT AND GPL-3.0", "", "(GPL-2.0 OR LGPL-2.1) AND MIT"):
            self.assertFalse(allowed(bad), bad)

    def test_requirements(self):
        matches = script("licences").matches
        for version, requirement, wanted in (("1.2.3", ">= 1.2.3", True), ("1.2.2", ">= 1.2.3", False), ("1.2.3-rc.1", ">= 1.2.3", False),
                                             ("0.3.9", "^0.3.1", True), ("0.4.0", "^0.3.1", False), ("1.9.0", ">= 1.2, < 2", True),
                                             ("2.0.0", ">= 1.2, < 2", False), ("1.2.9", "~1.2.3", True)):
            self.assertEqual(matches(version, requirement), wanted, (version, requirement))


class Flash(unittest.TestCase):
    """./build.sh flash on files: it writes, reads back, and refuses."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)
        self.image = self.folder / "x.img"
        self.image.write_bytes(os.urandom(5 << 20))
        self.card = self.folder / "card"
        self.card.write_bytes(bytes(6 << 20))

    def flash(self, *words):
        return subprocess.run([str(HERE.parent / "flash"), *map(str, words)], capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL)

    def test_writes_and_verifies(self):
        result = self.flash("--yes", "--image", self.image, self.card)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("written and verified", result.stdout)
        self.assertEqual(self.card.read_bytes()[:5 << 20], self.image.read_bytes())
        self.assertEqual(self.card.stat().st_size, 6 << 20)

    def test_writes_a_packed_image(self):
        import lzma
        packed = self.folder / "x.img.xz"
        packed.write_bytes(lzma.compress(self.image.read_bytes(), preset=0))
        self.assertEqual(self.flash("--yes", "--image", packed, self.card).returncode, 0)
        self.assertEqual(self.card.read_bytes()[:5 << 20], self.image.read_bytes())

    def test_asks(self):
        result = self.flash("--image", self.image, self.card)
        self.assertEqual(result.returncode, 1)
        self.assertIn("--yes", result.stderr)
        self.assertEqual(self.card.read_bytes(), bytes(6 << 20))

    def test_refuses_what_is_no_disk(self):
        for place in ("/dev/null", self.folder, self.folder / "absent"):
            self.assertEqual(self.flash("--yes", "--image", self.image, place).returncode, 1, place)

    def test_refuses_large_mounted_and_small_disks(self):
        flash = script("flash")
        with mock.patch.object(flash.os, "stat", return_value=mock.Mock(st_mode=0o060660)), \
                mock.patch.object(flash, "parent_of", return_value=None), \
                mock.patch.object(flash, "device_size", return_value=300 << 30), mock.patch.object(flash, "mounted", return_value=[]) as uses:
            with self.assertRaisesRegex(flash.Refused, "300 GiB"):
                flash.check("/dev/absent", 1, force=False)
            flash.check("/dev/absent", 1, force=True)
            uses.return_value = ["/dev/absent1 on /home"]
            with self.assertRaisesRegex(flash.Refused, "in use: /dev/absent1 on /home"):
                flash.check("/dev/absent", 1, force=True)
            uses.return_value = []
            with self.assertRaisesRegex(flash.Refused, "the image needs"):
                flash.check("/dev/absent", 400 << 30, force=True)

    def test_what_is_mounted_is_in_use(self):
        flash = script("flash")
        mounts = self.folder / "mounts"
        mounts.write_text("proc /proc proc rw 0 0\n/dev/absent /boot ext4 rw 0 0\n/dev/absent1 / ext4 rw 0 0\n/dev/other1 /home ext4 rw 0 0\n")
        parents = {"/dev/absent1": "/dev/absent", "/dev/other1": "/dev/other"}
        with mock.patch.object(flash, "MOUNTS", mounts), mock.patch.object(flash, "parent_of", parents.get):
            self.assertEqual(flash.mounted("/dev/absent"), ["/dev/absent on /boot", "/dev/absent1 on /"])
            self.assertEqual(flash.mounted("/dev/third"), [])


if __name__ == "__main__":
    unittest.main()
