# The GPU's firmware, laid out as the assembler takes it.
do_deploy:append() {
    package=${DEPLOYDIR}/firmware-package
    install -d $package/usr/lib/raspi-firmware
    for file in bootcode.bin start.elf fixup.dat start4.elf fixup4.dat; do
        install -m 0644 ${S}/$file $package/usr/lib/raspi-firmware/$file
    done
    install -D -m 0644 ${S}/LICENCE.broadcom $package/usr/share/doc/raspi-firmware/copyright
}
