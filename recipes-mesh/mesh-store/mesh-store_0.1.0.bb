SUMMARY = "The content store: IPFS blocks, gateway, exchange with other nodes"

inherit mesh-crate
