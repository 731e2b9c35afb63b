SUMMARY = "Which interface does what: wired links, access point, mesh point"

inherit mesh-crate
