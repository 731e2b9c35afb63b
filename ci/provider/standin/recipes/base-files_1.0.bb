SUMMARY = "Stand-in for OE-core's recipe: the root's folders and links"
LICENSE = "MIT | Apache-2.0"

do_install() {
    for folder in boot data dev etc home media mnt proc root run srv sys tmp usr/bin usr/lib usr/libexec usr/sbin usr/share var; do
        install -d ${D}/$folder
    done
    for link in bin lib sbin; do
        ln -s usr/$link ${D}/$link
    done
    cat > ${D}${sysconfdir}/os-release <<END
ID=p2pmesh
NAME="p2pmesh"
VERSION_ID=${DISTRO_VERSION}
PRETTY_NAME="p2pmesh ${DISTRO_VERSION}"
END
    printf '/bin/sh\n' > ${D}${sysconfdir}/shells
    printf '127.0.0.1\tlocalhost\n::1\tlocalhost\n' > ${D}${sysconfdir}/hosts
}
