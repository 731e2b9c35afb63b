SUMMARY = "Files laid over the root: start-up, services, accounts, defaults"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "file://${P2PMESH_TREE}/LICENSE-MIT;md5=99497f2d2baeb4595a7c8e94ae9fb853"

inherit allarch

FILESEXTRAPATHS:prepend := "${P2PMESH_TREE}/overlays:"
SRC_URI = "file://rootfs file://ownership.txt"
S = "${UNPACKDIR}"

# Git keeps neither modes nor owners: ownership.txt does.
do_install() {
    cp -R --no-dereference ${S}/rootfs/. ${D}/
    find ${D} -type d -exec chmod 0755 {} +
    find ${D} -type f -exec chmod 0644 {} +
    while read -r path mode uid gid; do
        case "$path" in
        '' | '#'*) continue ;;
        esac
        chmod "$mode" "${D}/$path"
        # Under OpenEmbedded this task is root in pseudo; the other provider hands the table to the assembler.
        if [ "$(id -u)" -eq 0 ]; then
            chown "$uid:$gid" "${D}/$path"
        fi
    done < ${S}/ownership.txt
}

FILES:${PN} = "/"
