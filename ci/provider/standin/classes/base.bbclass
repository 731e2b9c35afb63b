# Stand-in for OE-core's class: the task chain of an ordinary recipe.
inherit logging

addtask fetch
addtask unpack after do_fetch
addtask patch after do_unpack
addtask configure after do_patch
addtask compile after do_configure
addtask install after do_compile
addtask build after do_install

do_unpack[cleandirs] = "${UNPACKDIR}"
do_compile[dirs] = "${B}"
do_install[cleandirs] = "${D}"
do_install[dirs] = "${D}"

# Files named by SRC_URI are the only sources here; crates are fetched by cargo itself, under its own checksums.
python base_do_unpack() {
    import sources
    sources.unpack(d)
}
base_do_fetch() {
    :
}
base_do_patch() {
    :
}
base_do_configure() {
    :
}
base_do_compile() {
    :
}
base_do_install() {
    :
}
do_build() {
    :
}
EXPORT_FUNCTIONS do_fetch do_unpack do_patch do_configure do_compile do_install
