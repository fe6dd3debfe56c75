//! The network, the caches and the catalogue; the only async code.
//!
//! What comes from here was verified: an index by its signature, a package by the identity that a
//! verified index gives and by its data hash. Nothing here knows what is installed.

pub mod cache;
pub mod catalogue;
pub mod http;
pub mod index;
mod mapped;

pub use index::{IndexError, IndexLoader, LoadedIndex, Rules};
