"""The Rust toolchain: the host's when it is new enough, else Debian's, unpacked privately. Never a rustup download.

For the image, std is built from Debian's rust-src of the very same version and linked against Debian's musl by the toolchain's
own rust-lld: `cross()` gives what cargo must be told. Nothing needs a C cross compiler.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys

import private
from common import TREE, BuildError, cache_dir, locked, say, versions
from debs import Apt

TARGET = "aarch64-unknown-linux-musl"
# Debian's name of an architecture: the target of its static binaries, musl's folder and gcc's.
TARGETS = {"arm64": (TARGET, "aarch64-linux-musl", "aarch64-linux-gnu"),
           "amd64": ("x86_64-unknown-linux-musl", "x86_64-linux-musl", "x86_64-linux-gnu")}
PRIVATE_PACKAGES = ["rustc", "cargo", "rust-clippy", "rustfmt", "rust-src", "libstd-rust-dev"]
PRIVATE_COMMANDS = ["rustc", "rustdoc", "cargo", "cargo-clippy", "clippy-driver", "cargo-fmt", "rustfmt"]
# libgcc's unwinder asks glibc for this function; musl has none. All bits set is its "not found": the unwinder then
# takes the portable way. Written without core so that it can be compiled before there is a core.
STUB = """\
#![feature(no_core, lang_items)]
#![allow(internal_features)]
#![no_core]
#![crate_type = "rlib"]
#[lang = "pointee_sized"] trait PointeeSized {}
#[lang = "meta_sized"] trait MetaSized: PointeeSized {}
#[lang = "sized"] trait Sized: MetaSized {}
#[lang = "copy"] trait Copy {}
impl Copy for u32 {}
#[no_mangle]
pub extern "C" fn _dl_find_object() -> u32 { 0xffff_ffff }
"""


def _number(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


class Toolchain:
    """Where cargo and rustc are, and of which version."""

    def __init__(self, version: str, folder: pathlib.Path | None):
        self.version = version
        self.folder = folder            # bin/ to put first in PATH; None: the host's own

    def environment(self) -> dict[str, str]:
        """Variables that make plain `cargo` be this toolchain."""
        if self.folder is None:
            return {}
        # cargo asks /proc/self/exe where it is; under the private loader that is the loader, so it is told.
        return {"PATH": f"{self.folder}:{os.environ['PATH']}", "CARGO": str(self.folder / "cargo"),
                "RUSTC": str(self.folder / "rustc"), "RUSTDOC": str(self.folder / "rustdoc")}

    def run(self, *command: str, **more) -> str:
        """Standard output of one of the toolchain's programs."""
        environment = {**os.environ, **self.environment(), **more.pop("env", {})}
        result = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, **more)
        if result.returncode != 0:
            raise BuildError(f"{' '.join(command[:3])} failed:\n{result.stderr}")
        return result.stdout


def toolchain() -> Toolchain:
    """The host's toolchain if it will do (P2PMESH_RUST=private says it will not), else Debian's."""
    minimum = versions()["RUST_MINIMUM"]
    # Within another build.sh the private one is in PATH, and is no host's.
    wanted = os.environ.get("P2PMESH_RUST") == "private" or cache_dir() / "tools/rust/bin" in pathlib.Path(shutil.which("cargo") or "/").parents
    if not wanted and shutil.which("cargo") and shutil.which("rustc"):
        found = subprocess.run(["rustc", "--version"], check=False, capture_output=True, text=True, cwd=TREE / "crates").stdout
        if found.startswith("rustc ") and _number(found) >= _number(minimum) and "nightly" not in found:
            host = Toolchain(".".join(map(str, _number(found))), None)
            if _std_source(host) or _installed(host):
                return host
            say(f"the host's Rust {host.version} has neither the target {TARGET} nor a matching rust-src: using Debian's Rust")
        elif found:
            say(f"the host's {found.strip()} can't be used ({minimum} or newer, stable, is needed): using Debian's Rust")
    return _private_toolchain()


def _private_toolchain() -> Toolchain:
    apt = Apt(private.host_arch())
    mark = cache_dir() / "tools/rust/version"
    if not mark.exists():
        with locked(apt.home / "lock"):
            apt.update()
        minimum = _number(versions()["RUST_MINIMUM"])
        chosen = next((v for v in apt.all_versions("rustc") if _number(v) >= minimum), None)
        if not chosen:
            raise BuildError(f"Debian's lists have no rustc of {versions()['RUST_MINIMUM']} or newer: "
                             f"{apt.all_versions('rustc')}. Install a Rust toolchain and run this again.")
    else:
        chosen = mark.read_text().strip()
    major, minor = chosen.split(".")[:2]
    packages = [f"{name}={chosen}" for name in PRIVATE_PACKAGES] + [f"libstd-rust-{major}.{minor}={chosen}", "lld"]
    folder = private.install("rust", packages, PRIVATE_COMMANDS)
    mark.write_text(chosen + "\n")
    _private_extras(folder)
    return Toolchain(".".join(map(str, _number(chosen))), folder / "bin")


def _private_extras(folder: pathlib.Path) -> None:
    """rust-lld under the name rustc asks for, and what cargo's helpers look for."""
    root = folder / "root"
    lld = sorted(root.glob("usr/lib/llvm-*/bin/lld"))
    if not lld:
        raise BuildError("no lld in the packages of the private Rust toolchain")
    arch = private.host_arch()
    libraries = f"{root}/usr/lib/{private.TRIPLETS[arch]}"
    wrapper = folder / "bin/rust-lld"
    wrapper.write_text(f"#!/bin/sh\nexec '{libraries}/{private.LOADERS[arch]}' --library-path '{libraries}' --argv0 lld "
                       f"'{os.path.realpath(lld[-1])}' \"$@\"\n")
    wrapper.chmod(0o755)
    # cargo-clippy and cargo-fmt look beside their own program, which /proc/self/exe says is the loader.
    for name in ("clippy-driver", "rustfmt"):
        beside = pathlib.Path(libraries) / name
        beside.unlink(missing_ok=True)
        beside.symlink_to(folder / "bin" / name)


def _sysroot(chain: Toolchain) -> pathlib.Path:
    return pathlib.Path(chain.run("rustc", "--print", "sysroot").strip())


def _installed(chain: Toolchain, target: str = TARGET) -> bool:
    """Whether the toolchain brings std for the target itself."""
    return (_sysroot(chain) / "lib/rustlib" / target / "lib").is_dir()


def _std_source(chain: Toolchain) -> pathlib.Path | None:
    """std's source of exactly the toolchain's version: the toolchain's own, or Debian's package."""
    own = _sysroot(chain) / "lib/rustlib/src/rust/library"
    if (own / "std").is_dir():
        return own
    kept = cache_dir() / "cross" / f"rust-src-{chain.version}"
    if not kept.exists():
        apt = Apt("arm64")
        with locked(apt.home / "lock"):
            apt.update()
        version = next((v for v in apt.all_versions("rust-src") if v.startswith(chain.version + "+")), None)
        if version is None:
            return None
        [deb] = apt.fetch([f"rust-src={version}"])
        kept.parent.mkdir(exist_ok=True)
        partial = kept.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        partial.symlink_to(apt.unpack(deb))
        partial.replace(kept)
    return kept.resolve() / f"usr/src/rustc-{chain.version}/library"


def cross(chain: Toolchain, arch: str = "arm64") -> tuple[dict[str, str], list[str]]:
    """(environment, cargo arguments) that build a static binary as those of the image are, for that architecture of Debian's."""
    target = TARGETS[arch][0]
    home = pathlib.Path(os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))).absolute()
    flags = [f"--remap-path-prefix={TREE}=/p2pmesh", f"--remap-path-prefix={home}=/cargo",
             # +crc is in every supported board; aes and sha2 are not (Pi 3, Pi 4), whatever an emulator says.
             "-Ctarget-feature=+crc,+crt-static" if arch == "arm64" else "-Ctarget-feature=+crt-static",
             # Nothing unwinds: the tables for it are a tenth of a binary.
             "-Cpanic=abort", "-Cforce-unwind-tables=no",
             "-Clink-self-contained=no", "-Crelocation-model=static", "-Clinker-flavor=ld.lld"]
    key = "CARGO_TARGET_" + target.upper().replace("-", "_")
    environment = {**chain.environment(), f"{key}_LINKER": "rust-lld"}
    if _installed(chain, target):
        environment[f"{key}_RUSTFLAGS"] = " ".join(flags[:5] + ["-Clink-self-contained=yes", "-Clinker-flavor=ld.lld"])
        return environment, ["--target", target]
    source = _std_source(chain)
    if source is None:
        raise BuildError(f"no source of std {chain.version} for {target}")
    place = _link_inputs(chain, arch)
    flags += [f"--remap-path-prefix={source}=/rust-src", f"--remap-path-prefix={place}=/cross", f"-Lnative={place}",
              f"-Zpre-link-args={place}/crt1.o", f"-Zpre-link-args={place}/crti.o",
              f"-Clink-arg={place}/find-object.o", f"-Clink-arg={place}/crtn.o"]
    environment[f"{key}_RUSTFLAGS"] = " ".join(flags)
    # The two switches that let a stable toolchain build its own std from a folder outside its sysroot.
    environment["RUSTC_BOOTSTRAP"] = "1"
    environment["__CARGO_TESTS_ONLY_SRC_ROOT"] = str(source)
    # No std features: without symbols a backtrace says nothing, and it costs 175 KB a binary. Panics keep their messages.
    return environment, ["--target", target, "-Zbuild-std=std,panic_abort", "-Zbuild-std-features="]


def _link_inputs(chain: Toolchain, arch: str) -> pathlib.Path:
    """A folder with libc, its start files, the unwinder and our stub, all for that architecture."""
    target, musl_folder, gcc_folder = TARGETS[arch]
    folder = cache_dir() / "cross" / ("link-" + chain.version if target == TARGET else f"link-{chain.version}-{arch}")
    with locked(cache_dir() / "cross/lock"):
        if (folder / ".complete").exists():
            return folder
        apt = Apt(arch)
        with locked(apt.home / "lock"):
            apt.update()
        musl, gcc = (apt.unpack(deb) for deb in apt.fetch(["musl-dev", "libgcc-14-dev"]))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in ("crt1.o", "crti.o", "crtn.o", "libc.a"):
            shutil.copy(musl / "usr/lib" / musl_folder / file, folder)
        shutil.copy(gcc / "usr/lib/gcc" / gcc_folder / "14/libgcc_eh.a", folder / "libunwind.a")
        (folder / "find-object.rs").write_text(STUB)
        chain.run("rustc", "--edition", "2021", "--target", target, "-O", "-Cpanic=abort", "--emit", "obj",
                  "-o", str(folder / "find-object.o"), str(folder / "find-object.rs"), env={"RUSTC_BOOTSTRAP": "1"})
        (folder / ".complete").touch()
    return folder


def main() -> int:
    """`rust.py env`: shell lines for PATH; `rust.py cross CARGO_ARGS…`: cargo for the image's target; `rust.py static …`: for the
    same kind of binary on this machine."""
    try:
        chain = toolchain()
        if sys.argv[1:2] == ["env"]:
            for name, value in chain.environment().items():
                print(f"export {name}='{value}'")
            return 0
        if sys.argv[1:2] in (["cross"], ["static"]):
            environment, arguments = cross(chain, "arm64" if sys.argv[1] == "cross" else private.host_arch())
            # The options go behind cargo's verb.
            return subprocess.run(["cargo", sys.argv[2], *arguments, *sys.argv[3:]], check=False,
                                  env={**os.environ, **environment}).returncode
        print(chain.version)
    except BuildError as error:
        print(f"rust: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
