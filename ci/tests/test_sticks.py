"""An emulated Pi with USB sticks: a signed bundle on one is installed, what is no good costs a message. Then it is set back
by a file, by a command and by a button, and its boot firmware is exchanged and brought back. Serial logs stay in build/test-logs/Sticks/."""

import random
import re
import shutil
import struct
import subprocess
import sys
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "ci/emulator"))
from pi import SLOW  # noqa: E402
from sdcard import SECTOR, Card  # noqa: E402
from test_pis import APPLY, BOOT, Pis, identity, until  # noqa: E402
import systems  # noqa: E402

LOOK = 60    # seconds until a stick that was plugged in has been looked at
START, SIZE = 1 << 20, 64 << 20  # of a stick's partition
WATCHED = r"[0-9a-f-]{36}\n[0-9 ]+"
DAMAGED = r"(no bundle|can't be read|no file system|can't be mounted)"


def fat(path, *files):
    """A FAT file system with these files."""
    with open(path, "wb") as file:
        file.truncate(SIZE)
    systems.run("mkfs.fat", "-F", "32", "-s", "1", path)
    for source in files:
        systems.run("mcopy", "-i", path, source, f"::{source.name}")
    return path.read_bytes()


def ext4(path, *files):
    """An ext4 with these files."""
    folder = path.with_suffix(".files")
    folder.mkdir()
    for source in files:
        shutil.copy(source, folder)
    systems.run("mke2fs", "-q", "-t", "ext4", "-d", folder, path, "16M")
    return path.read_bytes()


def exfat(path):
    """An empty exFAT, or None where nothing makes one."""
    found = subprocess.run([sys.executable, ROOT / "ci/setup/private.py", "exfat"], capture_output=True, text=True, check=False)
    if found.returncode:
        print("\nSKIPPED: exFAT on a stick: mkfs.exfat can't be had", flush=True)
        return None
    with open(path, "wb") as file:
        file.truncate(16 << 20)
    systems.run(Path(found.stdout.strip()) / "mkfs.exfat", path)
    return path.read_bytes()


def partitioned(*parts):
    """A disk with these partitions, at most four: (content, type), and how many sectors the table claims if those are not all."""
    entries, data = b"", bytes(START)
    for content, kind, *claimed in parts:
        count = claimed[0] if claimed else len(content) // SECTOR
        entries += struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", len(data) // SECTOR, count)
        data += content
    return bytes(446) + entries.ljust(64, b"\0") + b"\x55\xaa" + data[SECTOR:]


def marked(folder):
    """Changes files of the boot firmware so that a start shows them, or shows none the worse for it."""
    uboot = (folder / "u-boot.bin").read_bytes()
    (folder / "u-boot.bin").write_bytes(uboot.replace(b"U-Boot 20", b"V-Boot 20"))
    script, text = folder / "boot.scr", folder / "boot.text"
    # Behind the header of 64 bytes: the text's length, a zero, the text.
    text.write_bytes(b'echo "p2pmesh: the exchanged script"\n' + script.read_bytes()[72:])
    systems.run("mkimage", "-A", "arm64", "-O", "linux", "-T", "script", "-C", "none", "-d", text, script)
    text.unlink()
    for name in ("start.elf", "fixup.dat", "start4.elf", "fixup4.dat", "bootcode.bin"):
        with open(folder / name, "ab") as file:
            file.write(b"changed")


class Sticks(Pis):
    """One node; the tests follow each other."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.pi = cls.make("sticky", size=1 << 30)
        cls.systems = systems.Systems(cls.pi.card, cls.folder)
        cls.pi.card.put_file("p2pmesh.toml", cls.systems.toml("sticky") + 'update.usb = true\nupdate.auto = "off"\n')
        # A stick installs only what is newer than what runs.
        cls.release = int(cls.systems.start["S_REL"], 16)
        cls.good = cls.systems.bundle("good", cls.systems.own(S_VER="2.0-stick"), release=cls.release + 10)
        cls.few = cls.systems.bundle("few", systems.tiny(), release=cls.release + 20, keys=(1,))
        cls.exfat = exfat(cls.folder / "exfat")
        cls.pi.card.put_file("exfat.bundle", cls.systems.bundle("exfat", systems.tiny("0.3-tiny"), release=cls.release + 10).read_bytes())

    def stick(self, name, data):
        """Plugs in a stick with this content."""
        path = self.folder / f"{name}.stick"
        path.write_bytes(data)
        self.pi.plug(name, path)

    def said(self, pattern, deadline=LOOK):
        """Waits for a message about a stick on the console, if it did not come before."""
        pattern = rf"USB stick sd\w+: (.*; )?{pattern}"
        if not self.pi.seen(pattern):
            self.pi.expect(pattern, deadline)

    def confirmed(self):
        self.ready(self.pi)
        until(self.pi, "meshctl update status", r"B +2\.0-stick .*running, confirmed", 120)

    def rubbish(self):
        """{name: content} of sticks that are no good, and {said of them: how often}."""
        noise = random.Random(5).randbytes(4 << 20)
        text, hidden = self.folder / "text.bundle", self.folder / "._hidden.bundle"
        text.write_bytes(b"hello, this is no bundle at all\n" * 20)
        hidden.write_bytes(noise[:5000])
        empty, fourth = fat(self.folder / "empty"), ext4(self.folder / "fourth", text)
        sticks = {
            "zeros": bytes(1 << 20),
            "noise": noise,
            "tables": partitioned((empty[:16 * SECTOR] + noise + empty[16 * SECTOR + len(noise):], 0x0C)),
            "short": partitioned((empty[:1 << 20], 0x0C, 1 << 24)),
            "head": partitioned((noise[:3] + empty[3:SECTOR] + noise, 0x0C)),
            "fourth": partitioned((fourth[:2048] + noise + fourth[2048 + len(noise):], 0x83)),
            "files": partitioned((fat(self.folder / "files", self.few, text, hidden), 0x0C)),
        }
        return sticks, {DAMAGED: len(sticks) - 1, r"text\.bundle: it is no update bundle .*few\.bundle: not enough signatures": 1}

    def test_1_a_good_one_among_many_that_are_there_at_the_start(self):
        content, good = partitioned((fat(self.folder / "fat", self.few, self.good), 0x0C)), rf"version 2\.0-stick \(release {self.release + 10}\)"
        sticks, reasons = self.rubbish()
        for name, data in {**sticks, "good": content}.items():
            self.stick(name, data)
        self.pi.start()
        # One word from each, whatever its name is this time.
        words = dict(self.pi.expect(r"USB stick (sd\w+): (?!.*(\d %|is installed: ))(.*)\n", APPLY).group(1, 3) for _ in self.pi.sticks)
        self.assertEqual(len(words), len(self.pi.sticks), words)
        for pattern, times in {rf"{good} is in slot B.*can be taken out": 1, **reasons}.items():
            self.assertEqual(sum(re.search(pattern, word) is not None for word in words.values()), times, (pattern, words))
        self.assertTrue(self.pi.seen(rf"USB stick sd[a-h]1: good\.bundle is installed: {good}"))
        self.pi.login()
        self.assertNotIn("/dev/sd", self.pi.run("cat /proc/mounts"))
        self.assertFalse(self.pi.seen(r"Oops|BUG:|Kernel panic"))
        self.pi.send("reboot\n")
        self.pi.expect(r"booting slot B, version 2\.0-stick", BOOT)
        self.confirmed()
        # One that stays does nothing more; and was only read.
        self.pi.expect(rf"USB stick sd[a-h]1: good\.bundle: release {self.release + 10} is not newer than what runs", LOOK)
        self.assertTrue((self.folder / "good.stick").read_bytes() == content, "the stick was written to")
        self.pi.kill()
        for name in list(self.pi.sticks):
            self.pi.unplug(name)

    def test_2_one_that_is_plugged_in_later_and_pulled_out_while_it_is_read(self):
        later, cut, pulled = (self.systems.bundle(name, data, release=self.release + number) for name, data, number in (
            ("later", systems.tiny("0.2-tiny"), 11), ("cut", systems.tiny("0.3-tiny"), 12),
            ("pulled", self.systems.own(S_VER="3.0-pulled"), 13)))
        cut.write_bytes(cut.read_bytes()[:-100])
        self.pi.start()
        self.confirmed()
        watched = "cat /proc/sys/kernel/random/boot_id; pidof mesh-supervisor mesh-update mesh-router mesh-store"
        before = until(self.pi, watched, WATCHED, 30)[0]
        self.stick("later", partitioned((self.exfat or bytes(1 << 20), 0x07), (ext4(self.folder / "ext4", later), 0x83),
                                        (fat(self.folder / "cut", cut), 0x0C), (fat(self.folder / "pulled", pulled), 0x0C)))
        if self.exfat:
            self.said(r"no bundle \(\*\.bundle\) on it")
            # It is not left read-only. What is written is found in test 3.
            self.pi.run("mkdir -p /tmp/stick && mount -t exfat /dev/sda1 /tmp/stick && cp /boot/exfat.bundle /tmp/stick && umount /tmp/stick")
        self.said(r"later\.bundle is installed: version 0\.2-tiny")
        self.said(r"version 0\.2-tiny .* is in slot A")
        self.said(r"cut\.bundle was not installed: .*truncated")
        self.said(r"pulled\.bundle is installed")
        self.pi.unplug("later")
        self.said(r"pulled\.bundle was not installed: ")
        self.assertEqual(until(self.pi, watched, WATCHED, 30)[0], before)
        self.pi.kill()

    def reset(self, before):
        """Waits for a factory reset; the system is the same, the identity is not. Returns it."""
        self.pi.expect(r"booting slot B, version 2\.0-stick", BOOT)
        self.pi.expect(r"FACTORY RESET: done", BOOT)
        self.confirmed()
        self.assertNotIn("factory-reset", self.pi.run("ls /boot"))
        self.assertIn(f'"floor": {self.release + 10}', self.pi.run("meshctl update status --json"))
        self.assertNotIn("to be forgotten", self.pi.run("cat ~/kept", check=False))
        self.assertNotIn(identity(self.pi), before)
        return identity(self.pi)

    def test_3_a_factory_reset_keeps_the_system_and_nothing_else(self):
        if "later" not in self.pi.sticks:
            self.pi.plug("later", self.folder / "later.stick")
        self.pi.card.set_state(order="B A")  # what test 2 left in slot A is not to be tried
        self.pi.start()
        self.confirmed()
        if self.exfat:
            self.said(rf"exfat\.bundle: release {self.release + 10} is not newer")
        first = identity(self.pi)
        self.pi.run('echo "to be forgotten" >~/kept && sync')
        self.pi.kill()
        self.pi.unplug("later")
        self.pi.card.put_file("factory-reset.txt", "")
        self.pi.card.set_state(order="B A")
        self.pi.start()
        second = self.reset([first])
        self.pi.run('echo "to be forgotten" >~/kept && sync')
        self.pi.send("meshctl factory-reset --yes\n")
        self.reset([first, second])

    def test_4_a_held_button_resets_once(self):
        # Nothing pulls this line up in QEMU: the kernel's driver for the board's GPIOs reads it as a button does that is held.
        before, toml = identity(self.pi), self.pi.card.get_file("p2pmesh.toml")
        self.pi.kill()
        self.pi.card.put_file("p2pmesh.toml", toml + b"reset.gpio = 26\n")
        self.pi.start()
        node = self.reset([before])
        self.assertTrue(self.pi.seen(r"the reset button \(GPIO 26\) is held: go on for 5 s"))
        self.pi.restart()
        self.pi.expect(r"the reset button \(GPIO 26\) is held since the last reset; nothing was reset", BOOT)
        self.confirmed()
        self.assertEqual(identity(self.pi), node)
        self.pi.kill()
        self.pi.card.put_file("p2pmesh.toml", toml)
        self.pi.start()
        self.confirmed()
        self.assertFalse(self.pi.seen(r"reset button|FACTORY RESET"))
        self.assertEqual(identity(self.pi), node)

    def firmware(self):
        """What of the FAT partition belongs to the firmware."""
        return {name: self.pi.card.get_file(name) for name in self.names}

    def test_5_boot_firmware_is_exchanged_and_brought_back(self):
        node = identity(self.pi)
        folder = self.folder / "firmware"
        shutil.copytree(self.image.parent / "firmware", folder)
        type(self).names = sorted(p.name for p in folder.iterdir())
        before = self.firmware()
        self.assertEqual(before, {name: (folder / name).read_bytes() for name in self.names})
        marked(folder)
        wanted = {name: (folder / name).read_bytes() for name in self.names}
        file = self.folder / "p2pmesh.firmware"
        systems.run(self.systems.tool, "firmware", folder, "-o", file, "--board", systems.BOARD, "--release", 5)
        few = self.folder / "few.firmware"
        shutil.copy(file, few)
        for path, keys in ((few, (3,)), (file, (1, 3))):
            systems.run(self.systems.tool, "sign", path, "--key", *(self.folder / f"key{n}" for n in keys))

        self.stick("firmware", partitioned((fat(self.folder / "firmware.fat", file, few), 0x0C)))
        self.said(r"no bundle")
        self.pi.run("mkdir -p /tmp/stick && mount -o ro /dev/sda1 /tmp/stick")
        self.assertRegex(self.pi.run("meshctl update firmware apply /tmp/stick/few.firmware 2>&1", LOOK, check=False), "not enough signatures")
        self.assertEqual(self.firmware(), before)
        self.pi.send("meshctl update firmware apply /tmp/stick/p2pmesh.firmware; echo \"[exchange\"\" $?]\"\n")
        looks = self.look_on(before, wanted)
        self.assertEqual(self.firmware(), wanted)
        self.assertGreater(looks, 3)

        self.starts(node, exchanged=True)
        self.assertRegex(self.pi.run("meshctl update firmware restore 2>&1", LOOK), "is in place")
        self.assertEqual(self.firmware(), before)
        self.starts(node, exchanged=False)
        self.pi.kill()
        # A checker has nothing to complain of.
        boot = self.folder / "boot.fat"
        boot.write_bytes(self.pi.card.read(*self.pi.card.partition(1)))
        systems.run("fsck.fat", "-n", boot)
        self.pi.close()

    def look_on(self, before, wanted):
        """Until the command ends: at any moment every file is whole, on the card as a pulled plug would leave it. Returns how often."""
        copy, looks, end = Card(self.folder / "look.img"), 0, time.monotonic() + 300 * SLOW
        while not self.pi.seen(r"\[exchange \d") and time.monotonic() < end:
            with self.pi.frozen():
                copy.path.write_bytes(self.pi.card.read(0, sum(self.pi.card.partition(1))))
            for name in self.names:
                self.assertIn(copy.get_file(name), (before[name], wanted[name]), name)
            looks += 1
        self.pi.expect(r"\[exchange 0\]", 1)
        return looks

    def starts(self, node, exchanged):
        """Another start, with what is on the card: the node is what it was, and shows whose firmware it started with."""
        self.pi.run("umount /tmp/stick 2>/dev/null; sync", check=False)
        self.pi.restart()
        self.confirmed()
        self.assertEqual(self.pi.seen(r"p2pmesh: the exchanged script"), exchanged)
        start = self.pi.log_path.read_text(errors="replace").rpartition(" power   on: ")[2]
        self.assertEqual("V-Boot 20" in start, exchanged)
        self.assertFalse(self.pi.seen(r"FACTORY RESET"))
        self.assertEqual(identity(self.pi), node)


if __name__ == "__main__":
    unittest.main(verbosity=2)
