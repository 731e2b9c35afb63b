# Stand-in for OE-core's class: files for the image's boot partition go to DEPLOY_DIR_IMAGE.
addtask deploy after do_install before do_build
do_deploy[cleandirs] = "${DEPLOYDIR}"
do_deploy[dirs] = "${DEPLOYDIR}"
