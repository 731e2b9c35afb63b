# Stand-in for OE-core's class: lay the packages of IMAGE_INSTALL (and what they need) over each other.
IMAGE_CLASSES ?= ""
inherit ${IMAGE_CLASSES}

IMAGE_ROOTFS = "${WORKDIR}/rootfs"
# Where people and tests look for it.
IMAGE_ROOTFS:pn-p2pmesh-image = "${BUILDDIR}/rootfs"
IMGDEPLOYDIR = "${BUILDDIR}/deploy"
IMAGE_FSTYPES ?= ""

deltask fetch
deltask unpack
deltask patch
deltask configure
deltask compile
deltask install
addtask rootfs
addtask image after do_rootfs
addtask image_complete after do_image
addtask build after do_image_complete

python do_rootfs() {
    import rootfs
    rootfs.stage(d)
}
python do_image() {
    import rootfs
    rootfs.image(d)
}
do_image_complete() {
    :
}
