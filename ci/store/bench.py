"""Figures of the content store: `bench.py --bin-dir DIR [--kubo LIBRARY] [--runs N] [--megabytes N] [--quick] [--only memory]`.

Everything runs on this machine's disk and loopback, kubo and `dd` in turn with ours; printed are medians (and the range).
Each run adds contents that nobody has seen before. The binaries are those of the image: static, release.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "ci/setup"))

from common import BuildError  # noqa: E402 (it is in the folder that was just added)

SMALL = 6000
HASH = "(SHA-256 of one core, OpenSSL)"
MB = 1_000_000


def say(text: str = "") -> None:
    print(text, flush=True)


def noise(path: pathlib.Path, size: int) -> None:
    """A file of `size` bytes that are new and don't repeat."""
    with path.open("wb") as out:
        while size > 0:
            out.write(random.randbytes(min(size, 1 << 20)))
            size -= 1 << 20
    settle()


def kubo_library() -> pathlib.Path:
    """Kubo, from the cache."""
    import ipfs
    return ipfs.kubo()


def settle() -> None:
    """What others wrote is on the disk before something is timed."""
    os.sync()


class Store:
    """A mesh-store of our own, on a port of its own."""

    def __init__(self, binaries: pathlib.Path, folder: pathlib.Path):
        self.binaries, self.folder = binaries, folder
        folder.mkdir()
        (folder / "p2pmesh.toml").touch()
        (folder / "ipfs").symlink_to(binaries / "meshctl")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen | None = None

    def start(self) -> float:
        """Starts it; seconds until it answers."""
        began = time.monotonic()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binaries / "mesh-store", "--config", self.folder / "p2pmesh.toml", "--state-dir", self.folder / "state",
                 "--run-dir", self.folder / "run", "--listen", f"127.0.0.1:{self.port}"], stderr=log, stdout=log)
        while time.monotonic() < began + 120:
            try:
                with socket.create_connection(("127.0.0.1", self.port)):
                    return time.monotonic() - began
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.002)
        raise SystemExit(f"bench: mesh-store does not answer: {(self.folder / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        """Ends it, all synced."""
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
            self.process = None

    def command(self, *words: str | os.PathLike) -> str:
        """Standard output of an ipfs command."""
        command = [self.folder / "ipfs", "--run-dir", self.folder / "run", *words]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def status(self, key: str) -> int:
        """A value of /proc/<pid>/status, in kB, or of /proc/<pid>/io, in bytes."""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text() + pathlib.Path(f"/proc/{self.process.pid}/io").read_text()
        return int(next(line for line in text.splitlines() if line.startswith(key + ":")).split()[1])

    def forget_peak(self) -> None:
        """From here on VmHWM is counted anew."""
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU that each thread has taken, by name; those of threads that have ended under `add`, as it is the
        only one that ends in a bench."""
        def seconds(stat: pathlib.Path) -> tuple[str, float]:
            head, _, rest = stat.read_text().rpartition(")")
            user, system = rest.split()[11:13]
            return head.partition("(")[2], (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
        folder = pathlib.Path(f"/proc/{self.process.pid}")
        threads = dict(seconds(task / "stat") for task in (folder / "task").iterdir())
        threads["add"] = seconds(folder / "stat")[1] - sum(threads.values())
        return threads

    def get(self, path: str, pause: float = 0, most: int | None = None) -> tuple[int, int, float]:
        """Status, bytes of the body, seconds. A slow client takes 64 KiB and pauses, and goes when it has `most` bytes."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            began = time.monotonic()
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            buffer, head, count = bytearray(1 << 16 if pause else 1 << 20), b"", 0
            while (most is None or count < most) and (n := connection.recv_into(buffer)):
                time.sleep(pause)
                if b"\r\n\r\n" in head:
                    count += n
                    continue
                head += bytes(buffer[:n])
                head, end, body = head.partition(b"\r\n\r\n")
                head += end
                count = len(body) if end else 0
            return int(head.split()[1]), count, time.monotonic() - began

    def forget(self) -> None:
        """The system keeps no segment in memory."""
        for path in (self.folder / "state").rglob("*.seg"):
            with path.open("rb") as segment:
                os.posix_fadvise(segment.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Kubo:
    """Kubo's shared library in a process of its own, offline."""

    def __init__(self, library: pathlib.Path, folder: pathlib.Path):
        folder.mkdir()
        self.process = subprocess.Popen([sys.executable, pathlib.Path(__file__).resolve(), "--be-kubo", str(library.resolve()), str(folder / "repo")],
                                        cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        text=True)  # it leaves a log where it is started
        if self.process.stdout.readline().strip() != "ready":
            self.stop()
            raise OSError("it does not start")

    def ask(self, *words: str | os.PathLike) -> tuple[str, float]:
        """Its answer, and the seconds it took."""
        began = time.monotonic()
        self.process.stdin.write("\t".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        return answer, time.monotonic() - began

    def status(self, key: str) -> int:
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith(key + ":")).split()[1])

    def stop(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def be_kubo(library_path: str, repository: str) -> None:
    """Answers `add PATH` and `get CID PATH` on standard input."""
    library = ctypes.CDLL(library_path)
    library.AddFile.restype = ctypes.c_void_p
    library.AddFile.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_bool]
    library.Download.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p]
    repo = repository.encode()
    library.CreateRepo(repo)
    path = pathlib.Path(repository) / "config"
    config = json.loads(path.read_text())
    config["Bootstrap"] = []
    config["Routing"] = {"Type": "none"}
    config["Addresses"].update(Swarm=[], API=[], Gateway=[])
    config["Discovery"]["MDNS"]["Enabled"] = False
    path.write_text(json.dumps(config))
    say("ready")
    for line in sys.stdin:
        what, *words = line.rstrip("\n").split("\t")
        if what == "add":
            answer = library.AddFile(repo, words[0].encode(), False)
            say(ctypes.string_at(answer).decode() if answer else "failed")
        else:
            say(str(library.Download(repo, words[0].encode(), words[1].encode())))


class Table:
    """Rows of medians, with the peer's, the ratio, and whether the goal is met."""

    def __init__(self):
        self.rows: dict[str, Row] = {}

    def row(self, name: str, unit: str, *, least: float | None = None, most: float | None = None, moonshot: float | None = None,
            more_is_better: bool = True, judged_by=statistics.median) -> Row:
        """The row of that name. `least` or `most` is its goal, or a function that gives it at the end."""
        return self.rows.setdefault(name, Row(unit, least, most, moonshot, more_is_better and most is None, judged_by))

    def show(self) -> None:
        say("\n| what | mesh-store | kubo | times better | goal | met |\n|---|---|---|---|---|---|")
        for name, row in self.rows.items():
            say(f"| {name} | {row.cell(row.ours)} | {row.cell(row.theirs)} | {row.ratio()} | {row.goal()} | {row.met()} |")
        missed = [name for name, row in self.rows.items() if row.met() == "no"]
        say("\n" + (f"goals missed: {', '.join(missed)}" if missed else "all goals of this table are met"))


class Row:
    """Values of ours and of the peer."""

    def __init__(self, unit: str, least, most, moonshot: float | None, more_is_better: bool, judged_by):
        self.unit, self.least, self.most, self.moonshot, self.more_is_better = unit, least, most, moonshot, more_is_better
        self.judged_by = judged_by
        self.ours: list[float] = []
        self.theirs: list[float] = []

    def bound(self) -> float | None:
        limit = self.least if self.least is not None else self.most
        return limit() if callable(limit) else limit

    def reaches(self, bound: float) -> bool:
        value = self.judged_by(self.ours)
        return value >= bound if self.more_is_better else value <= bound

    def goal(self) -> str:
        if (bound := self.bound()) is None:
            return ""
        text = f"{'>=' if self.more_is_better else '<='} {bound:.3g} {self.unit}"
        return text + (f", moonshot {self.moonshot:.4g}" if self.moonshot else "")

    def met(self) -> str:
        bound = self.bound()
        if bound is None or not self.ours:
            return ""
        if self.moonshot and self.reaches(self.moonshot):
            return "moonshot"
        return "yes" if self.reaches(bound) else "no"

    def ratio(self) -> str:
        if not self.ours or not self.theirs:
            return "-"
        a, b = statistics.median(self.ours), statistics.median(self.theirs)
        return f"{a / b if self.more_is_better else b / a:.1f}"

    def cell(self, values: list[float]) -> str:
        if not values:
            return "-"
        digits = 0 if statistics.median(values) >= 100 else 2
        text = f"{statistics.median(values):.{digits}f} {self.unit}"
        return text if len(values) == 1 else f"{text} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def dd(folder: pathlib.Path, source: pathlib.Path) -> float:
    """Seconds that dd takes to copy a file to the medium."""
    settle()
    began = time.monotonic()
    subprocess.run(["dd", f"if={source}", f"of={folder / 'dd'}", "bs=1M", "conv=fsync", "status=none"], check=True)
    took = time.monotonic() - began
    (folder / "dd").unlink()
    return took


def loopback(megabytes: int) -> float:
    """MB/s of a plain socket on loopback between two processes, in pieces of 256 KiB."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        if (child := os.fork()) == 0:
            connection, _ = server.accept()
            piece = bytes(1 << 18)
            for _ in range(megabytes * MB // len(piece)):
                connection.sendall(piece)
            os._exit(0)
        with socket.create_connection(server.getsockname()) as connection:
            buffer, count, began = bytearray(1 << 20), 0, time.monotonic()
            while n := connection.recv_into(buffer):
                count += n
            took = time.monotonic() - began
        os.waitpid(child, 0)
    return count / took / MB


def small_files(folder: pathlib.Path) -> None:
    """Many small files, a hundred in a folder."""
    for at in range(SMALL):
        sub = folder / f"{at // 100:02}"
        sub.mkdir(parents=True, exist_ok=True)
        (sub / f"{at}").write_bytes(random.randbytes(random.randint(16, 1024)))
    settle()


def adds(table: Table, store: Store, kubo: Kubo | None, folder: pathlib.Path, options: argparse.Namespace) -> str:
    """Large files, with dd and kubo; the CID of the last one."""
    source, size, cid = folder / "large", options.megabytes * MB, ""
    disk = table.row("(disk: dd conv=fsync)", "MB/s")
    row = table.row(f"durable add, {options.megabytes} MB", "MB/s", least=lambda: min(500, 0.6 * statistics.median(disk.ours)),
                    moonshot=0.8 * statistics.median(table.row(HASH, "MB/s").ours))
    share = table.row("(add, of what dd reaches)", "%")
    for _ in range(options.runs):
        noise(source, size)
        disk.ours.append(size / dd(folder, source) / MB)
        settle()
        cpu, began = store.cpu(), time.monotonic()
        cid = store.command("add", "-Q", source)
        row.ours.append(size / (time.monotonic() - began) / MB)
        burnt(table, "add", store, cpu, size)
        if kubo:
            settle()
            answer, took = kubo.ask("add", source)
            if answer != cid:
                raise SystemExit(f"bench: kubo says {answer}, mesh-store {cid}")
            row.theirs.append(size / took / MB)
        share.ours.append(100 * row.ours[-1] / disk.ours[-1])
    return cid


def burnt(table: Table, what: str, store: Store, before: dict[str, float], size: int) -> None:
    """The profile of what was just done: what each thread of the store took of a core's time."""
    names = {"mesh-store": "network", "blocks": "disk, verification"} | ({"add": "reading, hashing"} if what == "add" else {})
    for thread, seconds in store.cpu().items():
        if (name := names.get(thread)) and (took := seconds - before.get(thread, 0)) > 0:
            table.row(f"(CPU of {what}: {name})", "ms/MB", more_is_better=False).ours.append(took * 1e3 / (size / MB))


def many(table: Table, store: Store, kubo: Kubo | None, folder: pathlib.Path, runs: int) -> None:
    """A tree of small files."""
    for run in range(runs):
        tree = folder / f"small{run}"
        small_files(tree)
        row = table.row(f"{SMALL} small files, durable", "s", most=2, moonshot=0.5)
        began = time.monotonic()
        store.command("add", "-r", "-Q", tree)
        row.ours.append(time.monotonic() - began)
        # it takes a minute
        if kubo and run == 0:
            row.theirs.append(kubo.ask("add", tree)[1])
        shutil.rmtree(tree)


def reads(table: Table, store: Store, kubo: Kubo | None, cid: str, folder: pathlib.Path, options: argparse.Namespace) -> None:
    """The large file over HTTP, as a file and as a CAR."""
    for _ in range(options.runs):
        table.row("(plain socket on loopback)", "MB/s").ours.append(loopback(options.megabytes))
        for name, path, least, moonshot in [("verified GET", f"/ipfs/{cid}", 800, 1400), ("CAR", f"/ipfs/{cid}?format=car", 600, 1200)]:
            row = table.row(f"{name}, {options.megabytes} MB", "MB/s", least=least, moonshot=moonshot)
            cpu = store.cpu()
            status, count, took = store.get(path)
            if status != 200 or count < options.megabytes * MB:
                raise SystemExit(f"bench: {name}: status {status}, {count} bytes")
            row.ours.append(count / took / MB)
            burnt(table, name, store, cpu, count)
            if kubo and name == "verified GET":
                answer, took = kubo.ask("get", cid, folder / "copy")
                if answer == "0":
                    row.theirs.append(options.megabytes / took)
                (folder / "copy").unlink(missing_ok=True)


def load(table: Table, store: Store, kubo: Kubo | None, cid: str, folder: pathlib.Path, runs: int) -> None:
    """Memory while sixteen clients read and one adds: files, CARs of blocks of 1 MiB, and these with clients slower than the
    disk, which fill all that may be read ahead."""
    source = folder / "large"
    wide = store.command("add", "-Q", "--profile", "unixfs-v1-2025", source)
    row = table.row("memory at most, 16 readers and an add", "MB", most=32, judged_by=max)
    idle = table.row("memory afterwards", "MB", more_is_better=False)
    for _ in range(runs):
        store.forget_peak()
        for path, pause in [(f"/ipfs/{cid}", 0), (f"/ipfs/{wide}?format=car", 0), (f"/ipfs/{wide}?format=car", 0.01)]:
            noise(source, 100 * MB)
            most = 20 * MB if pause else None
            clients = [threading.Thread(target=store.get, args=(path, pause, most)) for _ in range(16)]
            for client in clients:
                client.start()
            store.command("add", "-Q", source)
            for client in clients:
                client.join()
        row.ours.append(store.status("VmHWM") / 1024)
        idle.ours.append(store.status("VmRSS") / 1024)
    if kubo:
        row.theirs.append(kubo.status("VmHWM") / 1024)
        idle.theirs.append(kubo.status("VmRSS") / 1024)


def opening(table: Table, store: Store, folder: pathlib.Path, quick: bool) -> None:
    """How long a large store takes to open, and what is read for it; memory for each block."""
    source = folder / "large"
    for _ in range(1 if quick else 4):
        noise(source, 200 * MB)
        store.command("add", "-Q", source)
    stored = sum(path.stat().st_size for path in (store.folder / "state").rglob("*.seg"))
    for _ in range(3):
        store.stop()
        store.forget()
        took = table.row(f"start with {stored / 1e9:.1f} GB in the store, nothing in memory", "s", more_is_better=False)
        took.ours.append(store.start())
        read = table.row("(read from the disk for that)", "MB", more_is_better=False)
        read.ours.append(store.status("read_bytes") / MB)
    idle = table.row("memory, idle, with it", "MB", most=8)
    idle.ours.append(store.status("VmRSS") / 1024)
    blocks = 100_000
    noise(source, blocks * 256)
    before = json_figures(store)
    store.command("add", "-Q", "--chunker", "size-256", source)
    figures = json_figures(store)
    store.stop()
    store.start()
    each = table.row(f"memory of a block ({figures - before} more)", "B", more_is_better=False)
    each.ours.append((store.status("VmRSS") / 1024 - idle.ours[-1]) * 1024 * 1024 / (figures - before))


def json_figures(store: Store) -> int:
    """Blocks held."""
    text = store.command("repo", "stat")
    return int(next(line for line in text.splitlines() if "Objects" in line).split()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin-dir", type=pathlib.Path, required=True)
    parser.add_argument("--kubo", type=pathlib.Path, help="kubo's shared library (default: fetched into the cache)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--only", choices=["memory"], help="the memory under load, and nothing else")
    parser.add_argument("--quick", action="store_true", help="one run of each, without kubo's small files")
    options = parser.parse_args()
    if options.quick:
        options.runs = 1
    table = Table()
    (ROOT / "build").mkdir(exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-store-", dir=ROOT / "build"))
    store = Store(options.bin_dir.resolve(), folder / "ours")
    kubo = None
    try:
        kubo = None if options.only else Kubo(options.kubo or kubo_library(), folder / "kubo")
    except (ImportError, BuildError, OSError) as error:
        say(f"SKIPPED: kubo beside mesh-store: {error}")
    try:
        table.row("size of mesh-store", "MB", most=2.5).ours.append((options.bin_dir / "mesh-store").stat().st_size / MB)
        store.start()
        idle = table.row("memory, idle, empty", "MB", most=8)
        idle.ours.append(store.status("VmRSS") / 1024)
        if kubo:
            idle.theirs.append(kubo.status("VmRSS") / 1024)
        if options.only:
            noise(folder / "large", options.megabytes * MB)
            load(table, store, None, store.command("add", "-Q", folder / "large"), folder, options.runs)
            table.show()
            return 0
        data = random.randbytes(1 << 18)
        for _ in range(3):
            began = time.monotonic()
            for _ in range(400):
                hashlib.sha256(data).digest()
            table.row(HASH, "MB/s").ours.append(400 * len(data) / (time.monotonic() - began) / MB)
        cid = adds(table, store, kubo, folder, options)
        many(table, store, None if options.quick else kubo, folder, options.runs)
        reads(table, store, kubo, cid, folder, options)
        load(table, store, kubo, cid, folder, options.runs)
        opening(table, store, folder, options.quick)
        table.show()
        say(f"load of the machine meanwhile: {os.getloadavg()[1]:.1f} (of {os.cpu_count()} cores; 5 minutes)")
    finally:
        store.stop()
        if kubo:
            kubo.stop()
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--be-kubo"]:
        be_kubo(*sys.argv[2:4])
        sys.exit(0)
    sys.exit(main())
