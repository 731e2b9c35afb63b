# What the node needs of its kernel, and the kernel laid out as the assembler takes it (see image_types_p2pmesh).
FILESEXTRAPATHS:prepend := "${THISDIR}/files:"
SRC_URI += "file://p2pmesh.cfg"

do_deploy:append() {
    package=${DEPLOYDIR}/kernel-package
    release=${KERNEL_VERSION}
    install -d $package/boot $package/usr/lib/modules $package/usr/lib/linux-image-$release/broadcom
    install -m 0644 ${B}/${KERNEL_OUTPUT_DIR}/Image $package/boot/vmlinuz-$release
    cp -R --no-dereference ${D}${nonarch_base_libdir}/modules/$release $package/usr/lib/modules/
    for tree in ${KERNEL_DEVICETREE}; do
        install -m 0644 ${B}/${KERNEL_OUTPUT_DIR}/dts/$tree $package/usr/lib/linux-image-$release/broadcom/
    done
}
