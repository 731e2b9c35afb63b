"""An emulated Pi that is updated by bundles: a good one, ones that are refused, one whose system never comes up, and
one whose installation is cut off by a pulled plug. Serial logs stay in build/test-logs/Updates/."""

import random
import subprocess
import sys
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "ci/emulator"))
import envsector  # noqa: E402  (sdcard makes it known)
from sdcard import SECTOR  # noqa: E402
from test_pis import BOOT, Pis, until  # noqa: E402

APPLY = 600  # seconds for an installation: the emulated card reads and writes some 2 MiB/s


def tool():
    """The tool that makes bundles, of the binaries stage or of a developer's build."""
    for kind in ("release", "debug"):
        path = ROOT / f"crates/target/{kind}/mesh-bundle"
        if path.exists():
            return path
    raise FileNotFoundError("no mesh-bundle; build it: cargo build --release -p mesh-bundle (in crates/)")


class Updates(Pis):
    """One node; the tests follow each other."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.tool = tool()
        cls.keys = []
        for number in (1, 2, 3):
            cls.keys.append(cls.bundler("keygen", cls.folder / f"key{number}", "--test", str(number)).strip())
        toml = f'hostname = "updated"\nupdate.keys = {cls.keys}\n'.replace("'", '"')
        cls.pi = cls.make("updated", toml=toml, size=1 << 30)
        cls.start = cls.pi.card.header("A")
        cls.pi.start()
        cls.ready(cls.pi)
        until(cls.pi, "meshctl update status", r"running, confirmed", 120)

    @classmethod
    def bundler(cls, *words):
        """Runs the tool; returns what it prints."""
        result = subprocess.run([str(cls.tool), *map(str, words)], capture_output=True, text=True, check=False)
        if result.returncode:
            raise AssertionError(f"mesh-bundle {words}: {result.stderr}")
        return result.stdout

    @classmethod
    def bundle(cls, name, *, keys=(1, 2), board="brcm,bcm2837", release=10, **fields):
        """A signed bundle of the system in slot A, with other fields in its header; its path on this host."""
        card, header = cls.pi.card, dict(cls.start)
        header.update(fields)
        length = (int(header["S_HOFF"], 16) + int(header["S_HCNT"], 16)) * SECTOR
        data = bytearray(card.read(card.slot_offset("A"), length))
        data[:SECTOR] = envsector.encode(dict(sorted(header.items())))
        (cls.folder / f"{name}.slot").write_bytes(data)
        path = cls.folder / f"{name}.bundle"
        cls.bundler("make", cls.folder / f"{name}.slot", "-o", path, "--board", board, "--release", release, "--floor", release)
        if keys:
            cls.bundler("sign", path, "--key", *(cls.folder / f"key{n}" for n in keys))
        return path

    def put(self, data):
        """Puts a bundle on the card's FAT partition while the node is off, and starts the node."""
        self.pi.kill()
        self.pi.card.put_file("x.bundle", data)
        self.pi.start()
        self.ready(self.pi)
        until(self.pi, "meshctl update status", r"running, confirmed", 120)

    def apply(self):
        return self.pi.run("meshctl update apply /boot/x.bundle 2>&1", APPLY, check=False)

    def test_1_bad_bundles_are_refused_and_the_node_is_as_it_was(self):
        good = self.bundle("small").read_bytes()
        flipped = bytearray(good)
        flipped[40] ^= 1
        for data, reason in (
                (self.bundle("one", keys=(1,)).read_bytes(), r"not enough signatures: 2 .* 1 did"),
                (bytes(flipped), r"wrong signature"),
                (self.bundle("pi5", board="brcm,bcm2712").read_bytes(), r"wrong board: it is for brcm,bcm2712"),
                (good[:-1000], r"truncated")):
            with self.subTest(reason):
                self.put(data)
                before = self.pi.card.states()
                self.assertRegex(self.apply(), reason)
                self.assertEqual(self.pi.card.states(), before)

    def test_2_a_good_bundle_is_installed_tried_and_confirmed(self):
        self.put(self.bundle("good", S_VER="2.0-test").read_bytes())
        self.assertRegex(self.apply(), r"version 2\.0-test \(release 10\) is in slot B")
        self.pi.send("reboot\n")
        self.pi.expect(r"booting slot B, version 2\.0-test", BOOT)
        self.ready(self.pi)
        until(self.pi, "meshctl update status", r"B +2\.0-test .*running, confirmed", 120)
        self.assertRegex(self.pi.run("meshctl update status --json"), r'"floor": 10')

    def test_3_an_older_one_is_refused_now(self):
        self.put(self.bundle("old", release=9).read_bytes())
        self.assertRegex(self.apply(), r"downgrade: it is release 9")

    def test_4_a_system_that_does_not_come_up_is_left_after_three_tries(self):
        # The root hash is wrong: /init can't mount the root image, and starts the board again.
        digits = self.start["S_ROOT"]
        wrong = ("0" if digits[0] != "0" else "1") + digits[1:]
        self.put(self.bundle("bad", release=11, S_VER="3.0-bad", S_ROOT=wrong).read_bytes())
        self.assertRegex(self.apply(), r"version 3\.0-bad \(release 11\) is in slot A")
        self.pi.send("reboot\n")
        for _ in range(3):
            self.pi.expect(r"booting slot A, version 3\.0-bad", BOOT)
        self.pi.expect(r"booting slot B, version 2\.0-test", BOOT)
        self.ready(self.pi)
        self.assertRegex(self.pi.run("meshctl update status"), r"went back from version 3\.0-bad in slot A: it never came as far")

    def test_5_pulled_plugs_during_an_installation(self):
        identity = self.pi.run("ipfs id")
        self.put(self.bundle("cut", release=12, S_VER="4.0-cut").read_bytes())
        chance = random.Random(7)
        for cut in range(4):
            with self.subTest(cut=cut):
                self.pi.send("meshctl update apply /boot/x.bundle\n")
                # Anywhere in the installation: it takes about that long on a quiet host.
                end = time.monotonic() + chance.random() * 40
                while time.monotonic() < end:
                    time.sleep(0.05)
                self.pi.kill()
                self.pi.start()
                self.pi.expect(r"booting slot (B|A), version (2\.0-test|4\.0-cut)", BOOT)
                self.ready(self.pi)
                until(self.pi, "meshctl update status", r"running, confirmed", 120)
        self.assertRegex(self.apply(), r"version 4\.0-cut \(release 12\) is in slot")
        self.assertEqual(self.pi.run("ipfs id"), identity)


if __name__ == "__main__":
    unittest.main(verbosity=2)
