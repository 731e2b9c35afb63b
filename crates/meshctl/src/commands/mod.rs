//! What the commands do, a file for each group.

pub(crate) mod counters;
pub(crate) mod decode;
pub(crate) mod help;
pub(crate) mod info;
pub(crate) mod ipns;
pub(crate) mod logs;
pub(crate) mod mesh;
pub(crate) mod reset;
pub(crate) mod store;
pub(crate) mod support;
pub(crate) mod update;
