# IMAGE_FSTYPES = "p2pcard": the whole SD card, made by ci/image/assemble.py from the staged root file system, the
# kernel, the initramfs' tree, the boards' firmware and the files of p2pmesh-boot.

P2PMESH_BOARD ?= "${DEPLOY_DIR_IMAGE}/board"
P2PMESH_VERSION ?= "${DISTRO_VERSION}"
# Where the results go; the debian provider puts them into build/deploy.
P2PMESH_OUT ?= "${IMGDEPLOYDIR}"

# The assembler takes whole packages, laid out as Debian's are: boot/vmlinuz-V, usr/lib/modules/V and
# usr/lib/linux-image-V/broadcom/*.dtb; usr/lib/u-boot/rpi_arm64/u-boot.bin; usr/lib/raspi-firmware/*.
P2PMESH_KERNEL ?= "${DEPLOY_DIR_IMAGE}/kernel-package"
P2PMESH_FIRMWARE ?= "${DEPLOY_DIR_IMAGE}/bootloader-package ${DEPLOY_DIR_IMAGE}/firmware-package"

IMAGE_CMD:p2pcard () {
    initramfs=${DEPLOY_DIR_IMAGE}/p2pmesh-initramfs-${MACHINE}.rootfs
    if [ ! -d "$initramfs" ]; then
        archive=${DEPLOY_DIR_IMAGE}/p2pmesh-initramfs-${MACHINE}.cpio
        initramfs=${WORKDIR}/initramfs-root
        rm -rf "$initramfs"
        mkdir -p "$initramfs"
        (cd "$initramfs" && cpio --extract --make-directories --quiet < "$archive")
    fi
    firmware=
    for package in ${P2PMESH_FIRMWARE}; do
        firmware="$firmware --firmware $package"
    done
    python3 ${P2PMESH_TREE}/ci/image/assemble.py \
        --rootfs ${IMAGE_ROOTFS} \
        --owners ${P2PMESH_TREE}/overlays/ownership.txt \
        --kernel ${P2PMESH_KERNEL} \
        --init "$initramfs/init" \
        $firmware \
        --board ${P2PMESH_BOARD} \
        --version ${P2PMESH_VERSION} \
        --epoch ${SOURCE_DATE_EPOCH} \
        --out ${P2PMESH_OUT}
}
IMAGE_TYPEDEP:p2pcard = ""
do_image_p2pcard[depends] += "p2pmesh-initramfs:do_image_complete virtual/kernel:do_deploy virtual/bootloader:do_deploy rpi-bootfiles:do_deploy p2pmesh-boot:do_deploy"
do_image_p2pcard[depends] += "erofs-utils-native:do_populate_sysroot mtools-native:do_populate_sysroot squashfs-tools-native:do_populate_sysroot dosfstools-native:do_populate_sysroot u-boot-tools-native:do_populate_sysroot xz-native:do_populate_sysroot"
do_image_p2pcard[file-checksums] += "${P2PMESH_TREE}/ci/image:True ${P2PMESH_TREE}/overlays/ownership.txt:True"
