//! Choosing packages; pure.
