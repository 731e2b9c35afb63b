SUMMARY = "The command line of a node; ipfs is the same program under its other name"

inherit mesh-crate

MESH_INSTALL_DIR = "${bindir}"

do_install:append() {
    ln -s meshctl ${D}${bindir}/ipfs
}
