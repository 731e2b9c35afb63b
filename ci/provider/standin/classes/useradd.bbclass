# Stand-in for OE-core's class: accounts are added when the root file system is staged (ci/provider/accounts.py).
USERADD_PACKAGES ?= ""
