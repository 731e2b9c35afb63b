#!/usr/bin/env python3
"""usage: ./build.sh bench update [--quick] [--runs N] [--bin-dir DIR] [--json FILE]

The figures of updates: an installation of 200 MB on this host's disk beside a plain copy of the same bytes (its size with
--quick: 50 MB), the same of 50 MB with the disk held down to the speed of an SD card, memory, what a changed service costs as a
delta; on an emulated Pi installation, trial boot and power cuts, in 200 of which it is killed (--quick: none of these). --bin-dir:
where the static mesh-update and meshctl are; the other programs are those of crates/target.
"""

import argparse
import json
import os
import random
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / "emulator")]
import systems  # noqa: E402
from bench import Table  # noqa: E402
from sdcard import SECTOR, STATE, Card, find_image  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SLOTS_AT, SLOT_MIB = 16, 256
# Bytes a second that a good SD card writes and reads in a Pi 3 or 4.
CARD_WRITES, CARD_READS = 40_000_000, 90_000_000


def card(path, running):
    """A card with two large slots, the system `running` in A, confirmed."""
    sectors = SLOT_MIB << 11
    table = bytearray(SECTOR)
    for number in (1, 2):
        start = (SLOTS_AT << 11) + (number - 1) * sectors
        struct.pack_into("<B3xB3xII", table, 446 + 16 * number, 0, 0xDA, start, sectors)
    table[510:] = b"\x55\xaa"
    path.unlink(missing_ok=True)
    with open(path, "wb") as file:
        # Not sparse: writes go where blocks are, as on a card.
        for _ in range(SLOTS_AT + 2 * SLOT_MIB):
            file.write(b"\xff" * (1 << 20))
        os.fsync(file.fileno())
    made = Card(path)
    made.write(0, table)
    made.put_slot("A", running)
    made.set_state(a_left=3, b_left=0)
    return made


class Service:
    """mesh-update on a card in a file."""

    def __init__(self, folder, path, binaries, keys):
        self.folder, self.binaries = folder, binaries
        (folder / "p2pmesh.toml").write_text(f"update.keys = {keys}\n".replace("'", '"'))
        self.log = open(folder / "mesh-update.log", "w")  # noqa: SIM115  (closed in __exit__)
        self.process = subprocess.Popen(
            [binaries / "mesh-update", "--disk", path, "--slot", "A", "--board", systems.BOARD, "--run-dir", folder, "--state-dir",
             folder / "state", "--config", folder / "p2pmesh.toml"], stderr=self.log)
        end = time.monotonic() + 30
        while not (folder / "mesh-update.sock").exists():
            if time.monotonic() > end:
                raise SystemExit("bench: mesh-update does not start")
            time.sleep(0.01)

    def apply(self, bundle, verb="apply"):
        """Seconds."""
        start = time.monotonic()
        systems.run(self.binaries / "meshctl", "--run-dir", self.folder, "update", verb, bundle)
        return time.monotonic() - start

    def peak(self):
        """The most memory it ever had, in bytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", text).group(1)) * 1024

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def copies(source, target, size):
    """A plain copy past the page cache: seconds to write it, and to write it and read it back."""
    offset = (SLOTS_AT + SLOT_MIB) << 20
    start = time.monotonic()
    systems.run("dd", f"if={source}", f"of={target}", "bs=1M", f"seek={offset}", "oflag=direct,seek_bytes", "conv=notrunc,fsync",
                "status=none")
    written = time.monotonic() - start
    systems.run("dd", f"if={target}", "of=/dev/null", "bs=1M", f"skip={offset}", f"count={size}",
                "iflag=direct,skip_bytes,count_bytes", "status=none")
    return written, time.monotonic() - start


class AsACard:
    """While in it, this process and its children get from the disk of a folder what an SD card would give (control groups; root)."""

    def __init__(self, folder):
        found = folder.stat().st_dev
        disk = Path(f"/sys/dev/block/{os.major(found)}:{os.minor(found)}").resolve()
        disk = disk.parent if (disk / "partition").exists() else disk
        number = (disk / "dev").read_text().strip()
        top = Path("/sys/fs/cgroup")
        if (top / "blkio").is_dir():
            top, which = top / "blkio", "blkio"
            self.limits = {"blkio.throttle.write_bps_device": f"{number} {CARD_WRITES}",
                           "blkio.throttle.read_bps_device": f"{number} {CARD_READS}"}
        else:
            which, self.limits = "", {"io.max": f"{number} wbps={CARD_WRITES} rbps={CARD_READS}"}
        now = (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines())
        self.before = top / next(path.lstrip("/") for _, kinds, path in now if which in kinds.split(","))
        self.group = top / f"p2pmesh-bench-{os.getpid()}"

    def __enter__(self):
        self.group.mkdir()
        try:
            for name, limit in self.limits.items():
                (self.group / name).write_text(limit)
            (self.group / "cgroup.procs").write_text(f"{os.getpid()}")
        except OSError:
            self.group.rmdir()
            raise

    def __exit__(self, *_):
        (self.before / "cgroup.procs").write_text(f"{os.getpid()}")
        self.group.rmdir()


def at_the_speed_of_a_card(table, folder, runs, binaries):
    """The same where the disk is no faster than the one it is made for."""
    folder = folder / "slow"
    folder.mkdir()
    try:
        with AsACard(folder):
            installation(table, folder, 50, runs, binaries, f"a disk that writes {CARD_WRITES // 10**6} and reads {CARD_READS // 10**6} MB/s")
    except OSError as error:
        print(f"SKIPPED: an installation at the speed of an SD card: the disk can't be held down: {error}")


def installation(table, folder, mib, runs, binaries, where="this host's disk"):
    """An installation beside a plain copy."""
    chance = random.Random(1)
    new = systems.tiny("2.0-bench", chance.randbytes(mib << 20))
    tool = systems.program("mesh-bundle")
    keys = [systems.run(tool, "keygen", folder / f"key{n}", "--test", n).strip() for n in (1, 2)]
    (folder / "new.slot").write_bytes(new)
    bundle = folder / "new.bundle"
    systems.run(tool, "make", folder / "new.slot", "-o", bundle, "--board", systems.BOARD, "--release", 2)
    systems.run(tool, "sign", bundle, "--key", folder / "key1", folder / "key2")
    path = folder / "card"
    made = card(path, systems.tiny())
    size, rows = len(new), []
    rounded = folder / "plain"
    rounded.write_bytes(new.ljust(-(-size // 4096) * 4096, b"\0"))
    for _ in range(runs):
        written, both = copies(rounded, path, rounded.stat().st_size)
        # Nothing of it may be found there and skipped.
        with open(path, "r+b") as file:
            file.seek((SLOTS_AT + SLOT_MIB) << 20)
            for _ in range(SLOT_MIB):
                file.write(b"\xff" * (1 << 20))
            os.fsync(file.fileno())
        made.set_state(a_left=3, b_left=0)
        with Service(folder, path, binaries, keys) as service:
            checked = service.apply(bundle, "check")
            applied = service.apply(bundle)
            rows.append((written, both, checked, applied, service.peak()))
        root = int(made.header("B")["S_ROFF"], 16) * SECTOR
        if made.read(made.slot_offset("B") + root, size - root) != new[root:]:
            raise SystemExit("bench: the installed system is not the one in the bundle")
    written, both, checked, applied, peak = (statistics.median(column) for column in zip(*rows, strict=True))
    table.title(f"installation of {size / 1e6:.0f} MB on {where} (medians of {runs})")
    table.add("plain copy (dd, direct, fsync)", written, "s", digits=2)
    table.add("the same, and read back", both, "s", digits=2)
    table.add("meshctl update check", checked, "s", digits=2)
    table.add("meshctl update apply", applied, "s", digits=2)
    table.add("apply / copy", applied / written, "×", digits=2)
    table.add("apply / copy and read back", applied / both, "×", 1.3, digits=2)
    table.add("most memory of mesh-update", peak / 1e6, "MB", 8)


def chunks(bundle):
    """{hash: bytes in the bundle} of a bundle's chunks."""
    data = Path(bundle).read_bytes()
    size, count = struct.unpack_from("<IH", data, 8)
    at, found, total = systems.PREFIX + size + systems.SIGNATURE * count, {}, 0
    while at + total != len(data):
        stored = struct.unpack_from("<I", data, at + 36)[0]
        found[data[at:at + 32]] = stored
        total += stored
        at += systems.ENTRY
    return found


def delta(table, folder, image):
    """What is fetched of an image in which 32 kB of one service changed."""
    folder = folder / "delta"
    folder.mkdir()
    source = Card.copy(image, folder / "image.img", 256 << 20)
    made = systems.Systems(source, folder)
    name = "usr/sbin/mesh-router"
    with tempfile.TemporaryDirectory(dir=folder) as tree:
        root = Path(tree) / "root.img"
        root.write_bytes(made.root())
        service = bytearray(subprocess.run(["unsquashfs", "-cat", root, name], check=True, capture_output=True).stdout)
    old = made.bundle("old", made.changed("1.0-delta", {name: bytes(service)}), release=1)
    middle = len(service) // 2
    service[middle:middle + 32768] = random.Random(2).randbytes(32768)
    new = made.bundle("fresh", made.changed("1.1-delta", {name: bytes(service)}), release=2)
    there, wanted = chunks(old), chunks(new)
    fetched, total = sum(n for h, n in wanted.items() if h not in there), sum(wanted.values())
    table.title("delta: the image, and the same with 32 kB of mesh-router changed")
    table.add("bundle", total / 1e6, "MB")
    table.add("of it not in the running slot", fetched / 1e6, "MB", digits=2)
    table.add("share", 100 * fetched / total, "%", 10)


def emulated(table, cuts, points):
    """An installation, a trial boot and power cuts on the emulated Pi."""
    from test_power_cuts import PowerCuts, Story  # noqa: PLC0415  (needs an image)
    PowerCuts.setUpClass()
    try:
        story = Story(PowerCuts, seed=time.time_ns() % 1000)
        story.lives()
        story.is_recorded()
        table.title("emulated Pi 3")
        for step, seconds in story.times.items():
            table.add(step, seconds, "s")
        kills = story.kills(cuts, 10)
        for step, number in kills.items():
            table.add(f"killed during: {step}", number, "", digits=0)
        table.add("of these started again", -(-sum(kills.values()) // 10), "", digits=0)
        text, kept = story.is_replayed(points, points // 10, 20)
        table.add("power cuts replayed", points, "", digits=0)
        story.start_all(kept)
        table.add("of these started", len(kept), "", digits=0)
        print(text)
    finally:
        PowerCuts.doClassCleanups()


def fleet():
    """From an announcement to the last of 25 nodes, where mesh-lab knows how."""
    lab = systems.program("mesh-lab")
    if subprocess.run([lab, "update", "--help"], capture_output=True, check=False, text=True).stderr.find("mesh-lab update") < 0:
        print("SKIPPED: from an announcement to 25 updated nodes: this mesh-lab has no such measurement")
        return
    # With all services, beside mesh-lab: not only those two that are measured here.
    subprocess.run([lab, "update"], check=True)


def measure(table, args):
    """All figures."""
    (ROOT / "build").mkdir(exist_ok=True)
    # The disk that is measured is the one that build/ is on.
    folder = Path(tempfile.mkdtemp(prefix="bench-update-", dir=ROOT / "build"))
    try:
        installation(table, folder, 50 if args.quick else 200, args.runs, args.bin_dir)
        at_the_speed_of_a_card(table, folder, args.runs, args.bin_dir)
        delta(table, folder, find_image())
    except FileNotFoundError as error:
        print(f"SKIPPED: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not args.quick:
        emulated(table, 200, 3000)
        fleet()


def main():
    """Command line entry."""
    p = argparse.ArgumentParser(usage=__doc__.split("\n", 1)[0].removeprefix("usage: "), description=__doc__.split("\n", 2)[2])
    p.add_argument("--quick", action="store_true")
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--bin-dir", type=Path, default=systems.program("mesh-update").parent)
    p.add_argument("--json", type=Path, default=ROOT / "build/bench/update.json")
    args = p.parse_args()
    table = Table()
    try:
        measure(table, args)
    finally:
        # What was measured is worth something even if the rest went wrong.
        print(table)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(table.values, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
