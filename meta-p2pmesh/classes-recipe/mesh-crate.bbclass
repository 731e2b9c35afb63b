# One binary of the Cargo workspace in crates/, linked statically.
#
# The workspace is the source: every member's folder and the lock file. The crates it uses are named, with their
# checksums, by Cargo.lock itself, so no list of them is kept by hand.

inherit cargo

LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = " \
    file://${P2PMESH_TREE}/LICENSE-MIT;md5=99497f2d2baeb4595a7c8e94ae9fb853 \
    file://${P2PMESH_TREE}/LICENSE-APACHE;md5=3b83ef96387f14655fc854ddc3c6bd57 \
    "

# The member to build, and where its binary goes.
MESH_CRATE ?= "${BPN}"
MESH_INSTALL_DIR ?= "${sbindir}"

FILESEXTRAPATHS:prepend := "${P2PMESH_TREE}/crates:"
SRC_URI = "file://Cargo.toml file://Cargo.lock ${@' '.join('file://' + m for m in mesh_members(d))} ${@mesh_registry_crates(d)}"
S = "${UNPACKDIR}"
CARGO_SRC_DIR = ""
CARGO_BUILD_FLAGS:append = " -p ${MESH_CRATE}"
RUSTFLAGS:append = " -C target-feature=+crt-static"

def mesh_members(d):
    """The workspace's member folders, from crates/Cargo.toml."""
    import re
    path = os.path.join(d.getVar("P2PMESH_TREE"), "crates", "Cargo.toml")
    bb.parse.mark_dependency(d, path)
    with open(path) as handle:
        block = re.search(r"^members\s*=\s*\[(.*?)\]", handle.read(), re.S | re.M)
    return re.findall(r'"([^"]+)"', block.group(1)) if block else []

def mesh_locked(d):
    """(name, version, SHA-256) of every crate Cargo.lock takes from the registry."""
    import re
    path = os.path.join(d.getVar("P2PMESH_TREE"), "crates", "Cargo.lock")
    bb.parse.mark_dependency(d, path)
    found = []
    with open(path) as handle:
        for block in handle.read().split("[[package]]")[1:]:
            fields = dict(re.findall(r'^(name|version|checksum) = "([^"]+)"', block, re.M))
            if "checksum" in fields:
                found.append((fields["name"], fields["version"], fields["checksum"]))
    return found

def mesh_registry_crates(d):
    return " ".join("crate://crates.io/%s/%s" % (name, version) for name, version, _ in mesh_locked(d))

python () {
    for name, version, checksum in mesh_locked(d):
        d.setVarFlag("SRC_URI", "%s-%s.sha256sum" % (name, version), checksum)
}

do_install() {
    install -d ${D}${MESH_INSTALL_DIR}
    install -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/${MESH_CRATE} ${D}${MESH_INSTALL_DIR}/${MESH_CRATE}
}
