# One U-Boot for all 64-bit boards, laid out as the assembler takes it.
do_deploy:append() {
    install -D -m 0644 ${B}/u-boot.bin ${DEPLOYDIR}/bootloader-package/usr/lib/u-boot/rpi_arm64/u-boot.bin
}
