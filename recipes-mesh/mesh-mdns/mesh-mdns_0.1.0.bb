SUMMARY = "The name responder: <hostname>.local on every link and across hops"

inherit mesh-crate
