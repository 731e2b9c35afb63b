SUMMARY = "Boot slots: trial boots, confirmation, rollback"

inherit mesh-crate
