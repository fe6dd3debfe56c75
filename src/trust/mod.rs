//! Keys and signatures: who said so.
