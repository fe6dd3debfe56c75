//! The network, the caches and the catalogue; the only async code.
