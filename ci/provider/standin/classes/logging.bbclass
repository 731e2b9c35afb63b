# Stand-in for OE-core's class: what shell tasks use to speak.
bbplain() {
    echo "$*"
}
bbnote() {
    echo "NOTE: $*"
}
bbwarn() {
    echo "WARNING: $*"
}
bberror() {
    echo "ERROR: $*" >&2
}
bbfatal() {
    echo "ERROR: $*" >&2
    exit 1
}
die() {
    bbfatal "$*"
}
