"""What emulation can't show: the FAT partition and the modules against the documented rules of the Raspberry Pi's
boot firmware and against the device trees, board by board. See board/raspberrypi/quirks.md.

Rules reads only this repository. BuiltImage reads the image in build/deploy ($P2PMESH_IMAGE).
"""

import fnmatch
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "emulator")]
import envsector  # noqa: E402
import fdt  # noqa: E402
import kmods  # noqa: E402
from sdcard import Card, find_image  # noqa: E402  (of ci/emulator)

BOARD = HERE.parents[1] / "board/raspberrypi"

# What the documentation says of each board: the filters of config.txt it sees, whether it loads bootcode.bin, its firmware
# pair, the name of its device tree upstream, the default lowest core clock, memory in MiB, and the devices that need a module
# (by the kernel's own names: of: device tree, usb:/pci: ids of what is soldered to the board).
SOC3 = {"of:brcm,bcm2835-sdhost", "of:brcm,bcm2835-sdhci", "of:brcm,bcm2835-usb", "of:brcm,bcm2835-rng",
        "of:brcm,bcm2837-thermal", "of:gpio-leds", "sdio:c*v02D0dA9A6", "platform:bcm2835-wdt"}
SOC4 = {"of:brcm,bcm2711-emmc2", "of:brcm,bcm2835-sdhci", "of:brcm,bcm2711-genet-v5", "of:brcm,bcm2711-rng200",
        "of:brcm,bcm2711-thermal", "of:gpio-leds", "of:regulator-fixed", "of:regulator-gpio", "pci:v00001106d00003483sv00001106sd00003483bc0Csc03i30",
        "sdio:c*v02D0dA9BF", "platform:bcm2835-wdt", "of:raspberrypi,firmware-reset"}
BOARDS = {
    "3A+": ({"all", "pi3", "pi3+"}, True, "start.elf", "fixup.dat", "bcm2837-rpi-3-a-plus.dtb", 250, 512, SOC3),
    "3B": ({"all", "pi3"}, True, "start.elf", "fixup.dat", "bcm2837-rpi-3-b.dtb", 250, 1024, SOC3 | {"usb:v0424pEC00"}),
    "3B+": ({"all", "pi3", "pi3+"}, True, "start.elf", "fixup.dat", "bcm2837-rpi-3-b-plus.dtb", 250, 1024, SOC3 | {"usb:v0424p7800"}),
    "Zero 2 W": ({"all", "pi0", "pi0w", "pi02"}, True, "start.elf", "fixup.dat", "bcm2837-rpi-zero-2-w.dtb", 250, 512, SOC3),
    "4B": ({"all", "pi4"}, False, "start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb", 200, 1024, SOC4),
    "400": ({"all", "pi4", "pi400"}, False, "start4.elf", "fixup4.dat", "bcm2711-rpi-400.dtb", 200, 4096, SOC4),
}
FILTERS = {"all", "none", "pi1", "pi2", "pi3", "pi3+", "pi4", "pi400", "cm4", "cm4s", "pi0", "pi0w", "pi02", "tryboot"}
KEYS = {"arm_64bit", "kernel", "upstream_kernel", "enable_uart", "gpu_mem", "disable_splash", "boot_delay", "avoid_warnings",
        "force_eeprom_read", "disable_poe_fan", "camera_auto_detect", "display_auto_detect", "core_freq", "core_freq_min"}


def config_for(filters, text=None):
    """config.txt as a board with these filters reads it."""
    values, active = {}, True
    for line in (text or (BOARD / "config.txt").read_text()).splitlines():
        line = line[:98].strip()
        if line.startswith("["):
            active = line[1:-1] in filters
        elif line and not line.startswith("#") and active:
            key, _, value = line.partition("=")
            values[key] = value
    return values


class Rules(unittest.TestCase):
    """config.txt and the lists, without a built image."""

    def test_config_txt_obeys_the_file_format(self):
        lines = (BOARD / "config.txt").read_text().splitlines()
        for number, line in enumerate(lines, 1):
            with self.subTest(line=number):
                self.assertLessEqual(len(line), 98, "the firmware ignores what follows")
                self.assertTrue(line.isascii())
                if line.startswith("["):
                    self.assertIn(line[1:-1], FILTERS)
                elif line and not line.startswith("#"):
                    self.assertRegex(line, r"^[a-z0-9_]+=[A-Za-z0-9._-]+$")
                    self.assertIn(line.partition("=")[0], KEYS)
        self.assertEqual([line for line in lines if line.startswith("[")][-1], "[all]", "what is appended must count for every board")

    def test_each_board_reads_a_working_configuration(self):
        for name, (filters, _, _, _, _, lowest, memory, _) in BOARDS.items():
            with self.subTest(name):
                config = config_for(filters)
                self.assertEqual(config["arm_64bit"], "1")
                self.assertEqual(config["kernel"], "u-boot.bin")
                self.assertEqual(config["upstream_kernel"], "1", "the device trees have upstream names")
                self.assertEqual(config["enable_uart"], "1")
                # The mini UART's clock is the core's: its highest and lowest must be the same.
                self.assertEqual(int(config["core_freq"]), int(config.get("core_freq_min", lowest)))
                # 16 would need start_cd.elf, less than 16 is not allowed.
                self.assertGreater(int(config["gpu_mem"]), 16)
                self.assertLessEqual(int(config["gpu_mem"]), memory // 4)

    def test_boot_script_stays_in_the_smallest_boards_memory(self):
        text = (BOARD / "boot.cmd").read_text()
        addresses = [int(a, 16) for a in re.findall(r"^setenv (?:a_\w+|kernel_comp_addr_r) ([0-9a-f]{8})$", text, re.M)]
        self.assertEqual(len(addresses), 6)
        limit = (512 - int(config_for(BOARDS["Zero 2 W"][0])["gpu_mem"])) << 20
        # Room for the unpacked kernel above the highest address, and for U-Boot itself at the top.
        self.assertLess(max(addresses) + (48 << 20) + (64 << 20), limit)

    def test_boot_script_has_no_apostrophe_in_its_commands(self):
        for number, line in enumerate((BOARD / "boot.cmd").read_text().splitlines(), 1):
            if not line.lstrip().startswith("#"):
                self.assertNotIn("'", line, f"boot.cmd:{number}: U-Boot's shell takes it for a quote")

    def test_text_for_people_is_plain(self):
        for name in ("README.txt", "p2pmesh.toml"):
            self.assertTrue((BOARD / name).read_text().isascii(), f"{name}: some editors guess another encoding")
        self.assertLessEqual(max(len(line) for line in (BOARD / "README.txt").read_text().splitlines()), 78)


def unpack(image, folder):
    """Unpacks a root image, erofs or squashfs."""
    if image.read_bytes()[:4] == b"hsqs":
        # Owners and device nodes can't be restored without privileges, and are not wanted here.
        subprocess.run(["unsquashfs", "-no-progress", "-ignore-errors", "-dest", folder, str(image)], capture_output=True, check=False)
    else:
        subprocess.run(["fsck.erofs", f"--extract={folder}", str(image)], check=True, capture_output=True)


class BuiltImage(unittest.TestCase):
    """The files of the built image."""

    @classmethod
    def setUpClass(cls):
        try:
            cls.card = Card(find_image())
        except FileNotFoundError as error:
            raise unittest.SkipTest(str(error)) from error
        with tempfile.TemporaryDirectory() as folder:
            offset = cls.card.part_offset("A", "R")
            header = cls.card.header("A")
            image = Path(folder, "root.img")
            image.write_bytes(cls.card.read(offset, int(header["S_RCNT"], 16) * 512))
            unpack(image, f"{folder}/root")
            found = sorted(Path(folder, "root").glob("**/lib/modules/*/modules.alias"))
            cls.aliases = [line.split()[1:3] for line in found[0].read_text().splitlines() if line.startswith("alias ")]
            cls.modules = {kmods.canonical(p.stem) for p in found[0].parent.glob("**/*.ko")}
            # A link that leads nowhere does not count.
            cls.firmware = {p.name for p in Path(folder, "root").glob("**/lib/firmware/**/*") if p.is_file()}

    def serves(self, device):
        """The modules that answer to a device name such as of:brcm,bcm2835-sdhost."""
        kind, _, rest = device.partition(":")
        # A module's pattern of a device tree device is of:N<name>T<type>C<compatible>; ids end in wildcards.
        if kind == "of":
            return {m for pattern, m in self.aliases if pattern.startswith("of:") and pattern.split("C", 1)[-1].removesuffix("C*") == rest}
        if kind == "pci":
            return {m for pattern, m in self.aliases if pattern.startswith("pci:") and fnmatch.fnmatchcase(device, pattern.removesuffix("*"))}
        return {m for pattern, m in self.aliases if pattern.startswith(device)}

    def test_every_file_that_a_board_loads_is_on_the_card(self):
        self.assertEqual(self.card.read(446 + 4, 1), b"\x0c", "the first partition is FAT32 with LBA")
        self.assertEqual(self.card.read(self.card.partition(1)[0] + 82, 5), b"FAT32")
        for name, (_, has_bootcode, start, fixup, tree, *_) in BOARDS.items():
            with self.subTest(name):
                for file in [start, fixup, tree, "u-boot.bin", "config.txt", "boot.scr", "uboot.env"] + ["bootcode.bin"] * has_bootcode:
                    self.assertGreater(len(self.card.get_file(file)), 100, file)

    def test_start_and_fixup_are_a_matched_pair(self):
        # Both come from one package; the start file says which fixup it wants by its variant.
        for start in ("start.elf", "start4.elf"):
            self.assertEqual(self.card.get_file(start)[:4], b"\x7fELF", start)
        self.assertLess(len(self.card.get_file("bootcode.bin")), 128 << 10, "the boot ROM loads it into 128 KiB")

    def test_u_boot_is_64_bit_code_and_its_environment_is_whole(self):
        # The firmware enters at the first instruction: a branch (AArch64: 0b000101 in the top bits).
        self.assertEqual(self.card.get_file("u-boot.bin")[3] >> 2, 0b000101)
        env = envsector.decode(self.card.get_file("uboot.env"))
        self.assertIsNotNone(env, "uboot.env has a wrong checksum")
        self.assertEqual(env["bootdelay"], "-2")
        self.assertNotIn("usb start", " ".join(env.values()))

    def test_each_boards_device_tree_has_the_console_on_the_mini_uart(self):
        for name, (_, _, _, _, tree, *_) in BOARDS.items():
            with self.subTest(name):
                nodes = fdt.parse(self.card.get_file(tree))
                self.assertEqual(fdt.strings(nodes["/chosen"]["stdout-path"]), ["serial1:115200n8"])
                path = fdt.strings(nodes["/aliases"]["serial1"])[0]
                live = fdt.enabled(nodes)
                self.assertIn(path, live)
                self.assertEqual(fdt.strings(live[path]["compatible"]), ["brcm,bcm2835-aux-uart"])

    def test_the_boot_script_sets_each_boards_own_timer(self):
        script = (BOARD / "boot.cmd").read_text()
        timers = dict(re.findall(r'"\$\{chip\}" = "([\w,]+)"; then setenv timer (\w+);', script))
        self.assertRegex(script, r"mw\.l \$\{timer\}24 5a0f{5}\n +mw\.l \$\{timer\}1c 5a000122\n", "PM_WDOG before PM_RSTC")
        for name, (_, _, _, _, tree, *_) in BOARDS.items():
            with self.subTest(name):
                nodes = fdt.parse(self.card.get_file(tree))
                self.assertNotIn("serial-number", nodes["/"], "only the firmware puts it there")
                bus, = (int(path.rpartition("@")[2], 16) for path, props in nodes.items()
                        if {"brcm,bcm2835-pm-wdt"} & set(fdt.strings(props.get("compatible", b""))))
                # From an address of the bus to the processor's: 1 cell, 1 or 2 cells, length 1 cell.
                ranges, wide = nodes["/soc"]["ranges"], int.from_bytes(nodes["/"]["#address-cells"], "big")
                step = 4 * (wide + 2)
                entries = [ranges[at:at + step] for at in range(0, len(ranges), step)]
                found = [(int.from_bytes(e[:4], "big"), int.from_bytes(e[4:-4], "big"), int.from_bytes(e[-4:], "big")) for e in entries]
                address, = (cpu + bus - child for child, cpu, length in found if child <= bus < child + length)
                self.assertEqual(timers[fdt.strings(nodes["/"]["compatible"])[1]] + "00", f"{address:x}")

    def test_each_device_of_each_board_has_its_module(self):
        for name, (*_, tree, _, _, devices) in BOARDS.items():
            nodes = fdt.enabled(fdt.parse(self.card.get_file(tree)))
            compatible = {f"of:{text}" for props in nodes.values() for text in fdt.strings(props.get("compatible", b""))}
            for device in sorted(devices):
                with self.subTest(board=name, device=device):
                    if device.startswith("of:"):
                        self.assertIn(device, compatible, "the table here and the device tree disagree")
                    self.assertTrue(self.serves(device), "no module in the image answers to it")

    def test_the_initramfs_has_the_card_controllers(self):
        early = {name for name, _ in kmods.read_list(BOARD / "modules.list")["initramfs"]}
        for device in ("of:brcm,bcm2835-sdhost", "of:brcm,bcm2835-sdhci", "of:brcm,bcm2711-emmc2", "of:regulator-fixed", "of:regulator-gpio"):
            self.assertTrue({kmods.canonical(m) for m in self.serves(device)} & early, device)

    def test_on_board_wifi_has_its_firmware(self):
        for tree, chip in (("3-model-b", "43430"), ("model-zero-2-w", "43430"), ("3-model-b-plus", "43455"), ("4-model-b", "43455")):
            with self.subTest(tree):
                self.assertIn(f"brcmfmac{chip}-sdio.bin", self.firmware)
                self.assertIn(f"brcmfmac{chip}-sdio.raspberrypi,{tree}.txt", self.firmware)


if __name__ == "__main__":
    unittest.main()
