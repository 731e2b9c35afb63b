"""Every kind of download over a connection that is cut half-way: it is resumed, or started again, and what is kept is whole."""

import hashlib
import http.server
import io
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import threading
import unittest
import zipfile
from unittest import mock

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "setup"))

import bitbake   # noqa: E402
import common    # noqa: E402
import debs      # noqa: E402

WRITTEN = "Thu, 01 Jan 2026 00:00:00 GMT"   # when every file was, as HTTP says it
PATIENCE = 120   # seconds for one client's whole run


class Files:
    """A web server on loopback. The first answers for a path in `cuts` end after so many bytes."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.cuts: dict[str, list[int]] = {}
        self.asked: list[tuple[str, int]] = []   # (path, first byte asked for)
        files = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """GET, with ranges."""

            protocol_version = "HTTP/1.1"

            def do_GET(self):
                """Serves, or cuts."""
                files.serve(self)

            def log_message(self, *_):
                """Tests are quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def serve(self, request):
        """One answer."""
        name = os.path.normpath(request.path)
        data = self.files.get(name)
        if data is None:
            request.send_error(404)
            return
        asked = request.headers.get("Range", "bytes=0-")
        if request.headers.get("If-Range", WRITTEN) != WRITTEN:
            asked = "bytes=0-"
        start = int(asked.removeprefix("bytes=").partition("-")[0])
        self.asked.append((name, start))
        if start >= len(data):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("Last-Modified", WRITTEN)
        request.send_header("Content-Type", "text/html" if name == "/bitbake-setup" else "application/octet-stream")
        request.send_header("Content-Length", str(len(data) - start))
        request.end_headers()
        cuts = self.cuts.get(name)
        request.wfile.write(data[start:][:cuts.pop(0)] if cuts else data[start:])
        if cuts is not None and len(data) - start > 0:
            request.close_connection = True

    def close(self):
        """Ends it."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Downloads(unittest.TestCase):
    """With an empty cache of its own."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)
        self.web = Files()
        self.addCleanup(self.web.close)
        # A proxy of the machine must not stand before loopback.
        patcher = mock.patch.dict(os.environ, {"P2PMESH_CACHE": str(self.folder / "cache"), "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"})
        patcher.start()
        self.addCleanup(patcher.stop)
        said = mock.patch.object(common, "say")
        said.start()
        self.addCleanup(said.stop)


class Debs(Downloads):
    """apt's downloads, from an archive with one package."""

    def setUp(self):
        super().setUp()
        control = self.folder / "big/DEBIAN/control"
        control.parent.mkdir(parents=True)
        control.write_text("Package: big\nVersion: 1\nArchitecture: arm64\nMaintainer: nobody <nobody@invalid>\nDescription: x\n")
        (self.folder / "big/data").write_bytes(os.urandom(3 << 20))
        package = self.folder / "big.deb"
        subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "-b", str(self.folder / "big"), str(package)], check=True, capture_output=True)
        self.bytes = package.read_bytes()
        stanza = (f"Package: big\nVersion: 1\nArchitecture: arm64\nFilename: ./big.deb\nSize: {len(self.bytes)}\n"
                  f"SHA256: {hashlib.sha256(self.bytes).hexdigest()}\nDescription: {'x' * 200_000}\n\n").encode()
        release = f"Origin: Debian\nSHA256:\n {hashlib.sha256(stanza).hexdigest()} {len(stanza)} Packages\n".encode()
        self.web.files = {"/big.deb": self.bytes, "/Packages": stanza, "/Release": release}
        self.apt = debs.Apt("arm64")
        (self.apt.home / "sources.list").write_text(f"deb [trusted=yes arch=arm64] {self.web.url} ./\n")
        self.read_lists()
        # Its own lists are read again in place of the machine's archive's.
        patcher = mock.patch.object(self.apt, "update", side_effect=lambda force=False: self.read_lists() if force else None)
        patcher.start()
        self.addCleanup(patcher.stop)

    def read_lists(self):
        self.apt._run("apt-get", "-q", "update", "-oAcquire::http::Timeout=5")

    def starts(self, name):
        return [start for path, start in self.web.asked if path == name]

    def fetch(self):
        real = self.apt._run
        # apt waits longer before each try; the test need not.
        with mock.patch.object(self.apt, "_run", lambda *a, **k: real(a[0], "-oAcquire::Retries::Delay=false", *a[1:], **k)), \
                mock.patch.object(sys, "stderr", open(os.devnull, "w")) as quiet, quiet:   # noqa: SIM115
            [deb] = self.apt.fetch(["big"])
        self.assertEqual(pathlib.Path(deb.path).read_bytes(), self.bytes)

    def test_cut_and_resumed_at_once(self):
        self.web.cuts["/big.deb"] = [1_000_000, 1_000_000]
        self.fetch()
        self.assertEqual(self.starts("/big.deb"), [0, 1_000_000, 2_000_000])

    def test_cut_until_it_gives_up_and_resumed_by_the_next_run(self):
        self.web.cuts["/big.deb"] = [100_000] * 8
        with self.assertRaises(common.BuildError) as caught:
            self.fetch()
        self.assertIn("run this again", str(caught.exception))
        del self.web.cuts["/big.deb"]
        before = len(self.starts("/big.deb"))
        self.fetch()
        self.assertEqual(self.starts("/big.deb")[before:], [800_000])

    def test_half_a_file_of_other_bytes_is_not_built_upon(self):
        half = self.apt.pool / "big_1_arm64.deb"
        for time in (0, 1767225600):   # as after a crash; as apt leaves it, with the time of WRITTEN
            half.write_bytes(bytes(1_000_000))
            os.utime(half, (time, time))
            self.fetch()
            half.unlink()

    def test_a_cut_package_list(self):
        self.web.asked.clear()
        for old in (self.apt.home / "lists").glob("*_*"):
            old.unlink()
        self.web.cuts["/Packages"] = [100_000]
        self.read_lists()
        self.assertEqual(self.starts("/Packages"), [0, 100_000])
        self.fetch()


class Wheel(Downloads):
    """pip's download of BitBake's library."""

    def test_cut_and_started_again(self):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("bb/__init__.py", "x = 1\n")
            archive.writestr("bb/data", os.urandom(1 << 20))
            archive.writestr("bitbake_setup-9.9.dist-info/METADATA", "Metadata-Version: 2.1\nName: bitbake-setup\nVersion: 9.9\n")
            archive.writestr("bitbake_setup-9.9.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr("bitbake_setup-9.9.dist-info/RECORD", "")
        name = "/bitbake_setup-9.9-py3-none-any.whl"
        wheel = packed.getvalue()
        pins = {"BITBAKE_SETUP_VERSION": "9.9", "BITBAKE_SETUP_SHA256": hashlib.sha256(wheel).hexdigest()}
        self.web.files = {name: wheel, "/bitbake-setup": f'<a href="{self.web.url}{name}">{name[1:]}</a>'.encode()}
        self.web.cuts[name] = [500_000]
        settings = {"PIP_INDEX_URL": self.web.url, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1", "PIP_FIND_LINKS": "",
                    "PIP_EXTRA_INDEX_URL": "", "PIP_NO_INDEX": ""}
        with mock.patch.object(bitbake, "versions", return_value=pins), mock.patch.dict(os.environ, settings):
            python = bitbake.python()
        self.assertEqual(sum(path == name for path, _ in self.web.asked), 2)
        found = subprocess.run([str(python), "-c", "import bb; print(bb.x)"], check=True, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(found.stdout, "1\n")


class Crates(Downloads):
    """cargo's downloads, from a registry with one crate."""

    def test_cut_and_started_again(self):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, data in (("Cargo.toml", b'[package]\nname = "big"\nversion = "1.0.0"\n'), ("src/lib.rs", b""), ("data", os.urandom(1 << 20))):
                entry = tarfile.TarInfo(f"big-1.0.0/{name}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        crate = packed.getvalue()
        line = f'{{"name":"big","vers":"1.0.0","deps":[],"cksum":"{hashlib.sha256(crate).hexdigest()}","features":{{}},"yanked":false}}'
        self.web.files = {"/index/config.json": f'{{"dl":"{self.web.url}/{{crate}}.crate"}}'.encode(), "/index/3/b/big": line.encode(),
                          "/big.crate": crate}
        self.web.cuts["/big.crate"] = [500_000]
        home, user = self.folder / "cargo", self.folder / "user"
        (user / "src").mkdir(parents=True)
        home.mkdir()
        (home / "config.toml").write_text('[source.crates-io]\nreplace-with = "here"\n[source.here]\n'
                                          f'registry = "sparse+{self.web.url}/index/"\n')
        (user / "Cargo.toml").write_text('[package]\nname = "user"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\nbig = "1"\n')
        (user / "src/lib.rs").touch()
        result = subprocess.run(["cargo", "fetch"], cwd=user, capture_output=True, text=True, check=False, timeout=PATIENCE,
                                env={**os.environ, "CARGO_HOME": str(home)})
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(sum(path == "/big.crate" for path, _ in self.web.asked), 2, result.stderr)
        [kept] = home.rglob("big-1.0.0.crate")
        self.assertEqual(kept.read_bytes(), crate)


if __name__ == "__main__":
    unittest.main()
