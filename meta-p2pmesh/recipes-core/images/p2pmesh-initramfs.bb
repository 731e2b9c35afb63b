SUMMARY = "The initramfs: one static /init (the assembler adds the modules it loads)"
LICENSE = "MIT | Apache-2.0"

IMAGE_INSTALL = "mesh-boot"
IMAGE_FEATURES = ""
IMAGE_FSTYPES = "cpio"
IMAGE_NAME_SUFFIX = ""

inherit core-image
