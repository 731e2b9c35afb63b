SUMMARY = "curl's everyday options on top of busybox wget"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "file://${P2PMESH_TREE}/LICENSE-MIT;md5=99497f2d2baeb4595a7c8e94ae9fb853"

inherit allarch

SRC_URI = "file://curl"
S = "${UNPACKDIR}"
RDEPENDS:${PN} = "busybox"

do_install() {
    install -d ${D}${bindir}
    install -m 0755 ${S}/curl ${D}${bindir}/curl
}
