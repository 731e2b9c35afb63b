SUMMARY = "Boot script, firmware configuration, card layout and module list of the boards"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "file://${P2PMESH_TREE}/LICENSE-MIT;md5=99497f2d2baeb4595a7c8e94ae9fb853"

inherit allarch deploy

FILESEXTRAPATHS:prepend := "${P2PMESH_TREE}/board:"
SRC_URI = "file://raspberrypi"
S = "${UNPACKDIR}"

# Nothing of it is in the root: the assembler puts it on the card's FAT partition.
do_deploy() {
    install -d ${DEPLOYDIR}/board
    cp -R --no-dereference ${S}/raspberrypi/. ${DEPLOYDIR}/board/
}
addtask deploy after do_install before do_build
