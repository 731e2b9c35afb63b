# Stand-in for OE-core's class: nothing to do, the image has one architecture.
