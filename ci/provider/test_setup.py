"""Set-up and flashing: pins, the machine's mirror, packages' words, and what ./build.sh flash refuses."""

import hashlib
import importlib.machinery
import importlib.util
import os
import pathlib
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


class Mirrors(unittest.TestCase):
    """The mirror comes from the machine, in either form of apt's sources, or from P2PMESH_MIRROR."""

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) if hasattr(self, "enterContext") else None
        if self.folder is None:
            holder = tempfile.TemporaryDirectory()
            self.addCleanup(holder.cleanup)
            self.folder = pathlib.Path(holder.name)
        (self.folder / "sources.list.d").mkdir()
        patcher = mock.patch.dict(os.environ)
        patcher.start()
        self.addCleanup(patcher.stop)
        os.environ.pop("P2PMESH_MIRROR", None)

    def ask(self, indexed=""):
        real = pathlib.Path

        def place(first, *rest):
            return self.folder if first == "/etc/apt" else real(first, *rest)

        with mock.patch.object(debs.subprocess, "run", return_value=mock.Mock(stdout=indexed)), \
                mock.patch.object(debs.pathlib, "Path", side_effect=place):
            return debs.mirrors()

    def test_from_apt_itself(self):
        lines = "http://one.invalid/debian/|Debian|Debian|bookworm\nhttp://one.invalid/debian-security/|Debian|Debian-Security|x\n"
        self.assertEqual(self.ask(lines), ("http://one.invalid/debian", "http://one.invalid/debian-security"))

    def test_others_packages_do_not_count(self):
        (self.folder / "sources.list").write_text("deb http://two.invalid/debian bookworm main\n")
        self.assertEqual(self.ask("http://one.invalid/ubuntu/|Ubuntu|Ubuntu|noble\n"), ("http://two.invalid/debian", None))

    def test_one_line_form_with_options_before_the_first_update(self):
        (self.folder / "sources.list").write_text("# deb http://no.invalid/debian x main\ndeb [arch=amd64] http://two.invalid/debian/ x main\n")
        self.assertEqual(self.ask(), ("http://two.invalid/debian", None))

    def test_deb822_form(self):
        (self.folder / "sources.list.d/debian.sources").write_text(
            "Types: deb\nURIs: https://three.invalid/debian\nSuites: trixie\n\nTypes: deb\nURIs: https://three.invalid/debian-security\n")
        self.assertEqual(self.ask(), ("https://three.invalid/debian", "https://three.invalid/debian-security"))

    def test_ubuntu_is_told_what_to_set(self):
        (self.folder / "sources.list").write_text("deb http://one.invalid/ubuntu noble main\n")
        with self.assertRaisesRegex(common.BuildError, "P2PMESH_MIRROR"):
            self.ask()

    def test_override(self):
        os.environ["P2PMESH_MIRROR"] = "http://four.invalid/debian/"
        self.assertEqual(self.ask()[0], "http://four.invalid/debian")


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

    def test_the_disk_of_the_root_file_system_is_in_use(self):
        flash = script("flash")
        sources = [line.split()[0] for line in pathlib.Path("/proc/mounts").read_text().splitlines() if line.startswith("/dev/")]
        for source in sources:
            if os.path.exists(source):
                self.assertTrue(flash.mounted(source), source)
                return
        self.skipTest("no disk is mounted here")


if __name__ == "__main__":
    unittest.main()
