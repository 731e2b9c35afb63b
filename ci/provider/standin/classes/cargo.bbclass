# Stand-in for OE-core's class. All packages of the workspace are built by one and the same cargo call into one target
# folder, so that a build is quick and a binary does not depend on which recipe asked first.

CARGO_SRC_DIR ??= ""
CARGO_MANIFEST_PATH ??= "${S}/${CARGO_SRC_DIR}/Cargo.toml"
CARGO_BUILD_FLAGS ?= ""
RUSTFLAGS ??= ""
B = "${WORKDIR}/build"
CARGO_TARGET_DIR = "${BUILDDIR}/cargo-arm64"
CARGO_TARGET_SUBDIR = "${P2PMESH_RUST_TARGET}/release"
# Sources are used where they are: cargo's own change detection works on them.
UNPACK_LINKS = "1"

python cargo_do_compile() {
    import crates
    crates.build(d)
}

do_compile[prefuncs] += "cargo_link_target"
cargo_link_target() {
    mkdir -p ${B} ${CARGO_TARGET_DIR}
    ln -sfn ${CARGO_TARGET_DIR} ${B}/target
}

EXPORT_FUNCTIONS do_compile
