//! The network, the caches and the catalogue; the only async code.
//!
//! What comes from here was verified: an index by its signature, a package by the identity that a
//! verified index gives and by its data hash. Nothing here knows what is installed.
//!
//! * [`http`]: one request made well, and whose turn it is among mirrors;
//! * [`remote_index`]: indexes, if they changed;
//! * [`package`]: package files, verified while they arrive;
//! * [`cache`], [`catalogue`]: what is kept; both may be deleted at any time;
//! * [`registry`]: the other way, images into a registry.

pub mod cache;
pub mod catalogue;
pub mod http;
pub mod index;
mod mapped;
pub mod measure;
pub mod package;
pub mod registry;
pub mod remote_index;
pub mod serve;

pub use http::{HttpError, Session};
pub use index::{Depth, IndexError, IndexLoader, LoadedIndex, Rules};
