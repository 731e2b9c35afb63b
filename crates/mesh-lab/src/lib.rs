//! Namespace lab: many nodes on one host (test tool)
