SUMMARY = "The initramfs' /init: modules, dm-verity, switch to the root image"

inherit mesh-crate

# The initramfs has nothing but this and a few modules.
MESH_INSTALL_DIR = ""

do_install() {
    install -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/${MESH_CRATE} ${D}/init
}

FILES:${PN} = "/init"
