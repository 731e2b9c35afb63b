SUMMARY = "The SD-card image of a node"
LICENSE = "MIT | Apache-2.0"

# The only list of what is in the image. Names are OpenEmbedded's; ci/provider/packages.ini says which of Debian's
# packages each one is for the debian provider.

# the base: directories, accounts, one busybox
IMAGE_INSTALL = "base-files base-passwd busybox"
# the node itself
IMAGE_INSTALL += "p2pmesh-overlay mesh-supervisor mesh-radio mesh-router mesh-mdns mesh-store mesh-update meshctl"
# the daemons of the access point and of a mesh with a password; mesh-radio runs them
IMAGE_INSTALL += "hostapd wpa-supplicant"
# the data partition: made, checked and grown on first boot
IMAGE_INSTALL += "e2fsprogs-mke2fs e2fsprogs-e2fsck e2fsprogs-resize2fs"
# what people use on a node
IMAGE_INSTALL += "dropbear iproute2-ip iproute2-tc iw iperf3 curl-lite"
# the boards: drivers, firmware of the radios, where they may transmit
IMAGE_INSTALL += "kernel-modules linux-firmware-rpidistro-bcm43430 linux-firmware-rpidistro-bcm43455 wireless-regdb-static"
# and of the USB radios that can mesh
IMAGE_INSTALL += "linux-firmware-ath9k linux-firmware-mediatek linux-firmware-ralink linux-firmware-rtl8188 linux-firmware-rtl8192cu"

# p2pmesh-overlay replaces configuration files of other packages, on purpose.
OPKG_ARGS:append = " --force-overwrite"

IMAGE_FEATURES = "read-only-rootfs"
IMAGE_FSTYPES = "p2pcard"
IMAGE_CLASSES += "image_types_p2pmesh"

inherit core-image
