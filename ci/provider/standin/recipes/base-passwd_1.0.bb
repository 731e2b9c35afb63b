SUMMARY = "Stand-in for OE-core's recipe: root and nobody"
LICENSE = "MIT | Apache-2.0"

do_install() {
    install -d ${D}${sysconfdir}
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n' > ${D}${sysconfdir}/passwd
    printf 'root:x:0:\ntty:x:5:\nnogroup:x:65534:\n' > ${D}${sysconfdir}/group
    printf 'root:*:::::::\nnobody:!:::::::\n' > ${D}${sysconfdir}/shadow
}
