SUMMARY = "Files laid over the root: start-up, services, defaults; the services' users"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "file://${P2PMESH_TREE}/LICENSE-MIT;md5=99497f2d2baeb4595a7c8e94ae9fb853"

inherit allarch useradd

FILESEXTRAPATHS:prepend := "${P2PMESH_TREE}/overlays:"
SRC_URI = "file://rootfs"
S = "${UNPACKDIR}"

# Each service has its own user; all are in the group that owns the control sockets. The numbers are fixed: they own
# files on the data partition, which outlives the image.
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system --gid 900 mesh"
USERADD_PARAM:${PN} = " \
    --system --uid 901 --gid mesh --home-dir / --shell /sbin/nologin mesh-router; \
    --system --uid 902 --gid mesh --home-dir / --shell /sbin/nologin mesh-radio; \
    --system --uid 903 --gid mesh --home-dir / --shell /sbin/nologin mesh-mdns; \
    --system --uid 904 --gid mesh --home-dir / --shell /sbin/nologin mesh-store; \
    --system --uid 905 --gid mesh --home-dir / --shell /sbin/nologin mesh-update \
    "

do_install() {
    cp -R --no-dereference --preserve=mode,links ${S}/rootfs/. ${D}/
}

FILES:${PN} = "/"
