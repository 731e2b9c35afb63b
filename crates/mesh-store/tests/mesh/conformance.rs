//! What the IPFS gateway specifications ask for, on the files of the conformance suite (`tests/fixtures`)
//! and on content made here where its files are too large to keep.

mod dag;
mod fixture;
mod ipns;
mod path;
mod redirects;
mod routing;
mod subdomain;
mod tar;
mod trustless;
