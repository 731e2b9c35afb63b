#!/usr/bin/env python3
"""usage: ./build.sh bench image [--json FILE] [--sizes-only]

Prints the image's figures next to their goals: sizes by part, boot phases of an emulated Pi 3 (through U-Boot and
booted directly) with a neighbour on its Ethernet, memory at idle, and what each service takes.
"""

import argparse
import json
import os
import platform
import re
import shutil
import struct
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from sdcard import Card, find_image  # noqa: E402
from hub import Hub  # noqa: E402
from pi import Deadline, EmulatedPi  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "build/bench"
OLSR_PORT = 269
READY = r"p2pmesh: node is ready"
PHASES = [("boot script decides", r"p2pmesh: boot state"), ("slot read and checked", r"p2pmesh: booting slot"),
          ("kernel starts", r"Starting kernel"), ("root verified, init", r"root verified and mounted"), ("node is ready", READY)]


class Table:
    """Lines of (what, value, goal), printed aligned, kept for the JSON file."""

    def __init__(self):
        self.rows, self.values = [], {}

    def title(self, text):
        """A heading."""
        self.rows.append((text, None, ""))

    def add(self, what, value, unit, goal=None, digits=1):
        """A figure; `goal` is an upper limit. None as value: it did not happen."""
        section = next((row[0] for row in reversed(self.rows) if row[1] is None), "")
        self.values[f"{section}: {what} [{unit}]"] = value
        verdict = ""
        if goal is not None:
            verdict = f"goal ≤ {goal} {unit}: " + ("ok" if value is not None and value <= goal else "MISSED")
        self.rows.append((what, "–" if value is None else f"{value:.{digits}f} {unit}", verdict))

    def __str__(self):
        lines = []
        for what, value, verdict in self.rows:
            lines.append(f"\n{what}" if value is None else f"  {what:34} {value:>12}   {verdict}".rstrip())
        return "\n".join(lines).strip("\n")


def sizes(table, image):
    """Image, slot and binaries."""
    out = image.parent
    figures = json.loads((out / "sizes.json").read_text())
    table.title("image")
    table.add("raw", image.stat().st_size / 2**20, "MiB", 200)
    packed = image.with_name(image.name + ".xz")
    table.add("compressed", packed.stat().st_size / 1e6 if packed.exists() else None, "MB", 48)
    table.add("FAT partition's files", sum(figures["fat"].values()) / 1e6, "MB")
    table.title("slot")
    goals = {"initramfs": 3, "kernel": 13.7, "used": 32}
    for part, size in figures["slot"].items():
        if part != "header":
            table.add("used part" if part == "used" else part, size / 1e6, "MB", goals.get(part))
    table.title("binaries (static arm64)")
    for path in sorted((out / "bin").glob("*")):
        table.add(path.name, path.stat().st_size / 1e3, "kB", 1000 if path.name.startswith("mesh") else None, 0)


def is_hello(frame):
    """Whether an Ethernet frame is a UDP packet of the router."""
    kind = struct.unpack_from("!H", frame, 12)[0] if len(frame) > 60 else 0
    if kind == 0x86DD and frame[20] == 17:
        return struct.unpack_from("!H", frame, 56)[0] == OLSR_PORT
    if kind == 0x0800 and frame[23] == 17:
        return struct.unpack_from("!H", frame, 14 + (frame[14] & 15) * 4 + 2)[0] == OLSR_PORT
    return False


def poll(pi, command, pattern, deadline):
    """Repeats a command on the console until its output has `pattern`; seconds since power-on, or None."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if re.search(pattern, pi.run(command, check=False)):
            return time.monotonic() - pi.powered
        time.sleep(0.2)
    return None


def cards(table, image, folder):
    """Cards of two Pis that have booted once: the first boot makes the data partition, which is timed here."""
    made = []
    table.title("first boot (makes the data partition), through U-Boot")
    for name in ("pi1", "pi2"):
        card = Card.copy(image, folder / f"{name}.img")
        with EmulatedPi(LOGS / "first", name, card) as pi:
            pi.prepare()
            pi.start().expect(READY, 300)
            if name == "pi1":
                table.add("node is ready", pi.time_of(READY), "s")
        made.append(card)
    return made


def boot(table, made, direct):
    """Boots a neighbour, then a Pi that is timed from power-on; returns the segment and both, still running."""
    hub = Hub().start()
    first, second = (EmulatedPi(LOGS / ("direct" if direct else "uboot"), name, card, networks=[hub.plug(name)], direct=direct)
                     for name, card in zip(("pi1", "pi2"), made, strict=True))
    hello = {}

    def listen(port, frame):
        if port not in hello and is_hello(frame):
            hello[port] = time.monotonic() - first.powered

    hub.listeners.append(listen)
    table.title("boot, kernel started directly" if direct else "boot, through U-Boot")
    try:
        # One after the other: each emulated Pi takes a whole core while it boots.
        second.start().expect(READY, 240)
        first.start().expect(READY, 240)
        first.login()
        neighbour = poll(first, "meshctl neighbors --json", r"fe80|10\.64\.", 60)
        name = poll(first, "ping -c 1 -W 1 pi2.local", r" 0% packet loss", 60)
        for what, pattern in PHASES:
            when = first.time_of(pattern)
            if when is not None or not direct:
                table.add(what, when, "s")
        table.add("first HELLO on the wire", hello.get("pi1"), "s", 8 if direct else 20)
        table.add("neighbour known", neighbour, "s")
        table.add("neighbour's name resolves", name, "s")
    except Deadline as error:
        table.add("BOOT FAILED", None, "s")
        print(error, file=sys.stderr)
    return hub, [first, second]


def memory(table, pi):
    """Memory at idle, from the console."""
    pi.run("sleep 5")
    total, used = (int(n) for n in re.search(r"Mem:\s+(\d+)\s+(\d+)", pi.run("free -k")).groups())
    table.title("memory at idle")
    table.add("used", used * 1024 / 1e6, "MB", 72)
    table.add("of", total * 1024 / 1e6, "MB")
    script = r"""for p in /proc/[0-9]*; do n=$(cat $p/comm 2>/dev/null); case $n in mesh*) echo "$n $(grep VmRSS $p/status)";; esac; done"""
    rows = re.findall(r"^(\S+) VmRSS:\s+(\d+) kB", pi.run(script), re.M)
    for name, size in rows:
        table.add(f"RSS {name}", int(size) * 1024 / 1e6, "MB", digits=2)
    table.add("RSS of all services", sum(int(size) for _, size in rows) * 1024 / 1e6, "MB", 16)


def main():
    """Command line entry."""
    p = argparse.ArgumentParser(usage="./build.sh bench image [--json FILE] [--sizes-only]")
    p.add_argument("--json", type=Path, default=LOGS / "image.json")
    p.add_argument("--sizes-only", action="store_true")
    args = p.parse_args()
    try:
        image = find_image()
    except FileNotFoundError as error:
        raise SystemExit(f"bench: {error}") from error
    table = Table()
    sizes(table, image)
    if not args.sizes_only:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            made = cards(table, image, Path(name))
            for direct in (False, True):
                hub, pis = boot(table, made, direct)
                try:
                    if direct and pis[0].seen(READY):
                        memory(table, pis[0])
                finally:
                    for pi in pis:
                        pi.close()
                    hub.stop()
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
               platform.machine())
    print(f"{image.name}, emulated on {os.cpu_count()} x {cpu}, {platform.system()} {platform.release()}, "
          f"{shutil.which('qemu-system-aarch64') or 'no QEMU'}\n")
    print(table)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(table.values, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
