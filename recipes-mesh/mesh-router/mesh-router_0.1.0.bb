SUMMARY = "The router: OLSRv2 for IPv4 and IPv6, and the mesh's small-record plane"

inherit mesh-crate
