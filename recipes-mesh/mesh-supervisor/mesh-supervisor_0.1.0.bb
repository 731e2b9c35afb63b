SUMMARY = "First boot, services with limits and back-off, the watchdog"

inherit mesh-crate
