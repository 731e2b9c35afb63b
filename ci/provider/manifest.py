"""The build manifest: every package in the image, with exact version, SHA-256, licence and where it came from."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import rust
from common import TREE, BuildError, cache_dir, versions


def linked_crates(packages: list[str]) -> list[dict]:
    """The registry's crates that the named workspace packages link on the target (not those only for tests or builds)."""
    chain = rust.toolchain()
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", rust.TARGET,
               "--manifest-path", str(TREE / "crates/Cargo.toml")]
    try:
        text = chain.run(*command, "--offline", env={"RUSTC_BOOTSTRAP": "1"})
    except BuildError:
        # cargo wants the sources of every crate in the graph, also of those that only tests use: once.
        text = chain.run(*command, env={"RUSTC_BOOTSTRAP": "1"})
    graph = json.loads(text)
    info = {package["id"]: package for package in graph["packages"]}
    nodes = {node["id"]: node for node in graph["resolve"]["nodes"]}
    waiting = [ident for ident, package in info.items() if package["name"] in packages and package["source"] is None]
    seen: set[str] = set()
    while waiting:
        ident = waiting.pop()
        if ident in seen:
            continue
        seen.add(ident)
        for dependency in nodes[ident]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    checksums = lock_checksums()
    found = [info[ident] for ident in seen if info[ident]["source"] is not None]
    return [{"name": package["name"], "version": package["version"], "licence": package["license"] or "not stated",
             "sha256": checksums.get((package["name"], package["version"]), "unknown"), "origin": "the crates registry"}
            for package in sorted(found, key=lambda package: (package["name"], package["version"]))]


def lock_checksums() -> dict[tuple[str, str], str]:
    """Of every crate in Cargo.lock."""
    found: dict[tuple[str, str], str] = {}
    for block in (TREE / "crates/Cargo.lock").read_text().split("[[package]]")[1:]:
        fields = dict(line.split(" = ", 1) for line in block.splitlines() if " = " in line)
        if "checksum" in fields:
            found[(fields["name"].strip('"'), fields["version"].strip('"'))] = fields["checksum"].strip('"')
    return found


def commit() -> str:
    """The commit built, with `-dirty` when files differ from it."""
    found = subprocess.run(["git", "-C", str(TREE), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"], check=False,
                           capture_output=True, text=True)
    return found.stdout.strip() or "unknown (not a git checkout)"


def tools() -> list[dict]:
    """The packages of the private tool sets that took part."""
    listed = cache_dir() / "tools/image/packages.txt"
    rows = [line.split() for line in listed.read_text().splitlines()] if listed.exists() else []
    return [{"name": name, "version": version, "architecture": arch, "sha256": sha256} for name, version, arch, sha256 in rows]


def write(runner, image, target: pathlib.Path) -> None:
    """Collect and write; the same build gives the same bytes."""
    ours = []
    for name in sorted(runner.done):
        recipe = runner.metadata.recipe_for(name)
        if recipe is not None and not recipe.getVar("IMAGE_INSTALL"):
            ours.append({"name": name, "version": recipe.getVar("PV"), "licence": recipe.getVar("LICENSE"),
                         "sha256": runner.done[name], "origin": os.path.relpath(recipe.getVar("FILE"), TREE)})
    chain = rust.toolchain()
    content = {
        "image": image.getVar("PN"),
        "version": image.getVar("P2PMESH_VERSION"),
        "commit": commit(),
        "source_date_epoch": int(image.getVar("SOURCE_DATE_EPOCH")),
        "debian": {"suite": versions()["DEBIAN_SUITE"], "sources": runner.thirdparty.apt.sources()},
        "rust": {"version": chain.version, "toolchain": "host" if chain.folder is None else "Debian", "target": rust.TARGET},
        "recipes": ours,
        "packages": runner.thirdparty.origins(runner.done),
        "crates": linked_crates(sorted({recipe.getVar("MESH_CRATE") for recipe in runner.metadata.recipes.values()
                                        if recipe.getVar("MESH_CRATE")})),
        "tools": tools(),
    }
    text = json.dumps(content, indent=1) + "\n"
    if not target.exists() or target.read_text() != text:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
