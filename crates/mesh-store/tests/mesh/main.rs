//! Real mesh-store processes on loopback: adding, reading, fetching from each other and from nodes
//! that lie, stall or are dead, and what clients do wrong.

mod content;
mod hostile;
mod support;
